use super::*;

fn failure(code: u16) -> Failure {
    Failure { code, message: "m".into(), about: None }
}

/// The verdict after these failures, a second after each other.
fn verdict(codes: &[u16]) -> Option<Obstacle> {
    let (mut trouble, start) = (Trouble::default(), Instant::now());
    let mut now = start;
    for (second, code) in (0..).zip(codes) {
        now = start + Duration::from_secs(second);
        trouble.note(&failure(*code), now);
    }
    trouble.verdict(now)
}

#[test]
fn a_refusal_is_believed_once_it_has_lasted() {
    assert_eq!(verdict(&[403; 10]), None, "an API server that starts may not know its roles");
    assert_eq!(verdict(&[403; 11]), Some(Obstacle::Forbidden));
    assert_eq!(verdict(&[404; 11]), Some(Obstacle::Unserved));
    assert_eq!(verdict(&[403, 403, 403, 403, 403, 403, 403, 0, 403, 403, 403]), None);
}

#[test]
fn errors_of_the_server_lead_to_polling_once_there_are_many_for_long() {
    assert_eq!(verdict(&[500; 15]), None);
    assert_eq!(
        verdict(&[500, 429, 503, 504, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500]),
        Some(Obstacle::Undecodable)
    );
}

#[test]
fn a_server_that_does_not_answer_is_no_obstacle() {
    assert_eq!(verdict(&[0; 100]), None);
}

#[test]
fn a_polled_kind_is_watched_again_ever_more_rarely() {
    let mut trouble = Trouble::default();
    let pauses: Vec<Duration> = (0..10).map(|_| trouble.polled_pause()).collect();
    assert!(pauses[0] <= Duration::from_secs(33), "{pauses:?}");
    assert!(pauses[9] >= Duration::from_secs(270) && pauses[9] <= Duration::from_secs(330), "{pauses:?}");
}
