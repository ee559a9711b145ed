//! Replays the committed corpus and seeded mutations of it through [`crate::differential::check`]:
//! what a fuzzer does, without one, and always the same.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::differential::check;

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

fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut files: Vec<_> =
        fs::read_dir(root.join("core/corpus")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut seeds: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(seeds.len() > 10, "the corpus is missing");
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

#[test]
fn the_corpus_and_its_mutations_agree_with_the_oracle() {
    let mut dice = Dice(1);
    for seed in seeds() {
        check(&seed);
        for _ in 0..150 {
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
