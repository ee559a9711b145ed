//! Only what an API server would accept comes out of the files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use super::*;
use crate::cert::Authority;
use crate::cert::test_support::Supply;

const NAME: &str = "driftguard-webhook.terrafusion-system.svc";

fn authority() -> Authority {
    Authority::generate(Timestamp::now()).unwrap()
}

fn parse(supply: &Supply) -> Result<Found, FilesError> {
    let files = supply.files();
    files.parse(&files.read().unwrap(), &NAME.try_into().unwrap(), Timestamp::now())
}

#[test]
fn a_certificate_of_one_of_the_authorities_can_be_served() {
    let (one, other) = (authority(), authority());
    let supply = Supply::new();
    supply.put(&one, NAME, &[&other, &one]);
    let found = parse(&supply).unwrap();
    assert_eq!(found.authorities.len(), 2);
    assert_eq!(found.supplied.trusted_by, [one.certificate().clone()]);
    assert_eq!(found.supplied.validity, found.leaf.validity());
}

#[test]
fn each_thing_that_can_be_wrong_is_said_without_repeating_a_key() {
    let (one, other) = (authority(), authority());
    let wrong = |damage: &dyn Fn(&Supply)| {
        let supply = Supply::new();
        supply.put(&one, NAME, &[&one]);
        damage(&supply);
        let error = parse(&supply).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        error.reason()
    };
    assert_eq!(wrong(&|supply| supply.write("tls.key", b"hunter2")), "KeyUnreadable");
    assert_eq!(wrong(&|supply| supply.write("tls.key", b"")), "KeyUnreadable");
    assert_eq!(wrong(&|supply| supply.write("tls.crt", b"hunter2")), "CertificateUnreadable");
    assert_eq!(wrong(&|supply| supply.write("ca.crt", b"")), "CertificateUnreadable");
    let half = |supply: &Supply| {
        let whole = std::fs::read(supply.path("tls.crt")).unwrap();
        supply.write("tls.crt", &whole[..whole.len() / 2]);
    };
    assert_eq!(wrong(&half), "CertificateUnreadable");
    let foreign_key = |supply: &Supply| {
        let certificate = std::fs::read(supply.path("tls.crt")).unwrap();
        supply.put(&one, NAME, &[&one]);
        supply.write("tls.crt", &certificate);
    };
    assert_eq!(wrong(&foreign_key), "KeyMismatch");
    assert_eq!(wrong(&|supply| supply.put(&one, "elsewhere.svc", &[&one])), "Unverified");
    assert_eq!(wrong(&|supply| supply.put(&one, NAME, &[&other])), "Unverified");
    assert_eq!(wrong(&|supply| supply.put_ended(&one, NAME)), "NotValid");
}

#[test]
fn a_file_that_is_missing_or_too_large_is_named() {
    let supply = Supply::new();
    supply.put(&authority(), NAME, &[&authority()]);
    let file = supply.path("tls.key");
    supply.write("tls.key", &vec![b'x'; (1 << 20) + 1]);
    let said = supply.files().read().err().unwrap().to_string();
    assert!(said.contains(file.to_str().unwrap()) && said.contains("larger"), "{said}");
    std::fs::remove_file(&file).unwrap();
    let said = supply.files().read().err().unwrap().to_string();
    assert!(said.contains(file.to_str().unwrap()), "{said}");
}
