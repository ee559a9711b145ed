//! How far enforcement is known to reach, over time: pure, so that it can be tested by itself.
//!
//! A guard that was proved stays proved while a later proof is under way: the rules that cover it are
//! replaced in one step by rules that cover it, too. A passing trouble with an API server does not
//! flip the conditions of every guard of the cluster; one that lasts does.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::guard::Target;
use crate::core::registration::Widened;

use super::conditions::Coverage;
use super::elsewhere::Elsewhere;

/// How long trouble may last before what was proved before it no longer counts. An API server that is
/// replaced is gone for less.
const TROUBLE: Duration = Duration::from_secs(60);
/// After so long everything is proved anew: an API server may have come, or a network gone.
const PROVE_AGAIN: Duration = Duration::from_secs(300);

/// What the last attempt to register and prove came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// All is well for a generation of the configurations.
    Good {
        /// The generation.
        generation: u64,
        /// [`Coverage::Proved`] or [`Coverage::Compared`].
        how: Coverage,
    },
    /// It could not be told or done; what was good before may still be.
    Trouble(Coverage),
    /// The registered rules are known not to be what they should.
    Broken(Coverage),
}

#[derive(Debug)]
struct Good {
    generation: u64,
    how: Coverage,
    /// The newest snapshot that it covers.
    version: u64,
    proved_at: Instant,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Standing {
    good: Option<Good>,
    wrong: Option<Coverage>,
    trouble_since: Option<Instant>,
    widened: Vec<Widened>,
    /// Groups for which the proof of others says nothing.
    pub(super) elsewhere: Elsewhere,
}

impl Standing {
    /// How `generation` was proved, unless that was too long ago.
    pub(super) fn proved(&self, generation: u64, now: Instant) -> Option<Coverage> {
        let good = self.good.as_ref().filter(|good| good.generation == generation)?;
        (self.wrong.is_none() && now < good.proved_at + PROVE_AGAIN).then(|| good.how.clone())
    }

    /// When everything is to be proved anew, or what could not be.
    pub(super) fn next_proof(&self) -> Option<Instant> {
        let all = self.good.as_ref().map(|good| good.proved_at + PROVE_AGAIN);
        [all, self.elsewhere.next()].into_iter().flatten().min()
    }

    /// Notes what became of the snapshot `version`. `fresh` tells that it was proved just now.
    pub(super) fn note(&mut self, attempt: Attempt, version: u64, fresh: bool, now: Instant) {
        match attempt {
            Attempt::Good { generation, how } => {
                let before = self.good.as_ref().map(|good| good.proved_at).filter(|_| !fresh);
                self.good = Some(Good { generation, how, version, proved_at: before.unwrap_or(now) });
                self.wrong = None;
                self.trouble_since = None;
            }
            Attempt::Trouble(coverage) => {
                let since = *self.trouble_since.get_or_insert(now);
                if now >= since + TROUBLE {
                    self.good = None;
                }
                self.wrong = Some(coverage);
            }
            Attempt::Broken(coverage) => {
                self.good = None;
                self.wrong = Some(coverage);
            }
        }
    }

    /// Notes which resources have rules that match more than guarded objects.
    pub(super) fn note_widened(&mut self, widened: Vec<Widened>) {
        self.widened = widened;
    }

    /// How far a guard is covered that stands as it is since snapshot `since`.
    pub(super) fn coverage(&self, since: u64, target: Option<&Target>) -> Coverage {
        let coverage = self.of_all(since, target);
        self.elsewhere.limit(target, since, coverage)
    }

    /// The same without regard to who serves the target's group.
    fn of_all(&self, since: u64, target: Option<&Target>) -> Coverage {
        let proved = self.good.as_ref().filter(|good| since <= good.version);
        match (proved, &self.wrong) {
            (Some(good), _) => {
                let widened = target.and_then(|target| {
                    let of_target =
                        |wide: &&Widened| wide.group == target.group && wide.resource == target.resource;
                    self.widened.iter().find(of_target)
                });
                widened.map_or_else(|| good.how.clone(), |wide| Coverage::Widened(wide.width))
            }
            (None, Some(wrong)) => wrong.clone(),
            (None, None) => Coverage::Pending("the webhook rules are being written".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::registration::Width;

    fn good(generation: u64) -> Attempt {
        Attempt::Good { generation, how: Coverage::Proved }
    }

    fn trouble() -> Attempt {
        Attempt::Trouble(Coverage::Failed("no answer".into()))
    }

    #[test]
    fn nothing_is_covered_before_the_first_proof() {
        let standing = Standing::default();
        assert!(matches!(standing.coverage(1, None), Coverage::Pending(_)));
        assert_eq!(standing.proved(0, Instant::now()), None);
    }

    #[test]
    fn a_proof_covers_every_guard_of_its_snapshot_and_none_that_came_later() {
        let mut standing = Standing::default();
        standing.note(good(1), 5, true, Instant::now());
        assert_eq!(standing.coverage(5, None), Coverage::Proved);
        assert!(matches!(standing.coverage(6, None), Coverage::Pending(_)));
    }

    #[test]
    fn passing_trouble_concerns_only_guards_that_were_not_proved_before() {
        let mut standing = Standing::default();
        let start = Instant::now();
        standing.note(good(1), 5, true, start);
        standing.note(trouble(), 6, false, start);
        assert_eq!(standing.coverage(5, None), Coverage::Proved);
        assert_eq!(standing.coverage(6, None), Coverage::Failed("no answer".into()));
        assert_eq!(standing.proved(1, start), None, "it is proved anew as soon as possible");
        standing.note(trouble(), 6, false, start + TROUBLE);
        assert_eq!(standing.coverage(5, None), Coverage::Failed("no answer".into()), "it has lasted");
    }

    #[test]
    fn trouble_is_counted_from_its_beginning_and_forgotten_at_its_end() {
        let mut standing = Standing::default();
        let start = Instant::now();
        standing.note(good(1), 5, true, start);
        standing.note(trouble(), 5, false, start);
        standing.note(good(1), 5, true, start + TROUBLE / 2);
        standing.note(trouble(), 5, false, start + TROUBLE);
        assert_eq!(standing.coverage(5, None), Coverage::Proved);
    }

    #[test]
    fn rules_known_to_be_altered_cover_nobody_at_once() {
        let mut standing = Standing::default();
        let start = Instant::now();
        standing.note(good(1), 5, true, start);
        let altered = Coverage::Pending("altered".into());
        standing.note(Attempt::Broken(altered.clone()), 5, false, start);
        assert_eq!(standing.coverage(5, None), altered);
    }

    #[test]
    fn a_proof_is_used_again_for_a_while_and_for_its_generation_alone() {
        let mut standing = Standing::default();
        let start = Instant::now();
        standing.note(good(1), 5, true, start);
        let later = start + PROVE_AGAIN - Duration::from_secs(1);
        assert_eq!(standing.proved(1, later), Some(Coverage::Proved));
        assert_eq!(standing.proved(2, later), None);
        // Another snapshot under the same rules is covered without making the proof any younger.
        standing.note(good(1), 6, false, later);
        assert_eq!(standing.coverage(6, None), Coverage::Proved);
        assert_eq!(standing.next_proof(), Some(start + PROVE_AGAIN));
        assert_eq!(standing.proved(1, start + PROVE_AGAIN), None);
    }

    #[test]
    fn guards_of_a_resource_with_wider_rules_say_so() {
        let mut standing = Standing::default();
        standing.note(good(1), 5, true, Instant::now());
        let wide = Widened { group: String::new(), resource: "configmaps".into(), width: Width::Namespaces };
        standing.note_widened(vec![wide]);
        let target = |resource: &str| Target {
            group: "".into(),
            version: "v1".into(),
            kind: "".into(),
            resource: resource.into(),
            namespace: Some("n".into()),
            name: "x".into(),
        };
        assert_eq!(standing.coverage(5, Some(&target("configmaps"))), Coverage::Widened(Width::Namespaces));
        assert_eq!(standing.coverage(5, Some(&target("secrets"))), Coverage::Proved);
    }
}
