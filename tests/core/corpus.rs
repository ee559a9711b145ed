//! Replays the committed corpora and seeded mutations of them through [`crate::differential::check`] and
//! what [`crate::hostile`] checks: what a fuzzer does, without one, and always the same.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::differential::check;
use crate::hostile;

/// Tokens that mutations put in: the places where JSON readers go wrong.
const TOKENS: [&[u8]; 16] = [
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud83e",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"-0",
    b"1e999",
    b"\xf0\x9f\xa6\x80",
    b"\x7f",
    b"                                                                ",
];

fn corpus(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/core").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the corpus is missing");
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut seeds = corpus("corpus");
    let vectors: Value =
        serde_json::from_slice(&fs::read(root.join("vectors/canonical.json")).unwrap()).unwrap();
    for (place, case) in vectors.as_array().unwrap().iter().enumerate() {
        let kind = b"01234"[place % 5];
        seeds.push([&[kind], case["object"].as_str().unwrap().as_bytes()].concat());
    }
    seeds
}

/// A small generator of our own, so that the same mutations run everywhere and always.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }
}

fn mutate(input: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.roll(input.len());
    match dice.roll(5) {
        0 => input[at] = u8::try_from(dice.roll(256)).unwrap(),
        1 => drop(input.splice(at..at, TOKENS[dice.roll(TOKENS.len())].iter().copied())),
        2 => {
            let end = (at + dice.roll(20)).min(input.len());
            input.drain(at..end);
        }
        3 => {
            let end = (at + dice.roll(40)).min(input.len());
            let piece = input[at..end].to_vec();
            let to = dice.roll(input.len());
            input.splice(to..to, piece);
        }
        _ => input.truncate(at.max(1)),
    }
}

/// Checks every seed, and `mutations` of each.
fn replay(seeds: &[Vec<u8>], mutations: usize, check: fn(&[u8])) {
    let mut dice = Dice(1);
    for seed in seeds {
        check(seed);
        for _ in 0..mutations {
            let mut input = seed.clone();
            for _ in 0..=dice.roll(4) {
                if !input.is_empty() {
                    mutate(&mut input, &mut dice);
                }
            }
            check(&input);
        }
    }
}

#[test]
fn the_corpus_and_its_mutations_agree_with_the_oracle() {
    replay(&seeds(), 150, check);
}

#[test]
fn whatever_review_comes_the_gate_tells_its_uid_and_lets_just_what_is_approved_pass() {
    replay(&corpus("corpora/reviews"), 800, hostile::review);
}

#[test]
fn whatever_review_comes_what_is_put_back_is_approved() {
    replay(&corpus("corpora/reviews"), 800, hostile::rewriting);
}

#[test]
fn paths_that_compile_mean_what_they_name() {
    replay(&corpus("corpora/paths"), 1500, hostile::paths);
}

#[test]
fn no_spec_of_a_guard_is_misread() {
    replay(&corpus("corpora/guards"), 1000, hostile::guard_spec);
}

#[test]
fn an_authority_that_is_taken_can_sign_and_an_error_tells_no_key() {
    let mut seeds = corpus("corpora/authorities");
    // Made here: no key lies in the repository.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let certificate = params.self_signed(&key).unwrap().pem();
    let parts =
        [certificate.as_str(), &key.serialize_pem(), &certificate, &certificate, &key.serialize_pem()];
    seeds.push(parts.join("\0").into_bytes());
    replay(&seeds, 400, hostile::authorities);
}

#[test]
fn whatever_a_source_says_becomes_the_target_or_nothing() {
    replay(&corpus("corpora/sources"), 500, hostile::sources);
}
