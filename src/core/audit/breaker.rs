//! When many guards drift at once: remediation stops, since the approval or the source is the likelier
//! culprit.
//!
//! What stops it is an incident, of one namespace of guards or of the cluster. It is over when none of
//! its guards is drifted any more, or when a person has acknowledged it. One of the cluster takes those of
//! namespaces up, so that no guard ever has two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use crate::core::text::Text;

use super::after;

/// Acknowledgements of incidents that are not known are kept, the last of them: a new leader reads the
/// annotation of a guard before it looks at the target of another.
const ACKNOWLEDGED: usize = 64;
/// What the id of an incident of the whole cluster begins with.
const CLUSTER: &str = "cluster-";
/// What the id of an incident of one namespace begins with.
const NAMESPACE: &str = "namespace-";

/// How many guards may drift anew within a while before remediation stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Within how long.
    pub window: Duration,
    /// So many of a namespace may, however few guards it has.
    pub namespace_least: usize,
    /// Or so many in a hundred of a namespace's guards, if that is more.
    pub namespace_percent: usize,
    /// So many of the cluster may.
    pub cluster_least: usize,
    /// Or so many in a hundred of all guards.
    pub cluster_percent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(300),
            namespace_least: 5,
            namespace_percent: 20,
            cluster_least: 10,
            cluster_percent: 10,
        }
    }
}

/// How far an incident reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Guards of this namespace.
    Namespace(Text),
    /// All guards.
    Cluster,
}

impl Reach {
    /// Whether it reaches guards of a namespace.
    #[must_use]
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::Namespace(own) => own == namespace,
            Self::Cluster => true,
        }
    }

    /// How people call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Namespace(namespace) => format!("namespace {namespace}"),
            Self::Cluster => "the cluster".to_owned(),
        }
    }
}

/// Many guards that drifted at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Its id, which an acknowledgement names.
    pub id: String,
    /// How far it reaches.
    pub reach: Reach,
    /// Its guards that are drifted still, by uid.
    pub drifted: BTreeSet<Text>,
    /// How many had drifted when it began, and of how many.
    pub counts: (usize, usize),
}

/// Counts drift, and says when it is too much.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    limits: Limits,
    guards: BTreeMap<Text, usize>,
    total: usize,
    /// Drift that began within the window: when, in which namespace, of which guard.
    recent: VecDeque<(Timestamp, Text, Text)>,
    /// Of [`Self::recent`], those that are drifted still.
    drifted: BTreeSet<Text>,
    incidents: Vec<Incident>,
    /// Ids of incidents, each with the namespace of the guard by which it was acknowledged.
    acknowledged: VecDeque<(String, Text)>,
}

impl Breaker {
    /// A breaker that has seen nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// How many guards there are in each namespace.
    pub fn census(&mut self, guards: impl IntoIterator<Item = (Text, usize)>) {
        self.guards.clear();
        for (namespace, count) in guards {
            *self.guards.entry(namespace).or_default() += count;
        }
        self.total = self.guards.values().sum();
    }

    /// The incident that holds back guards of a namespace.
    #[must_use]
    pub fn holds(&self, namespace: &str) -> Option<&Incident> {
        self.incidents.iter().find(|incident| incident.reach.covers(namespace))
    }

    /// Notes that a guard drifted anew. Gives the incident that begins by that, with those that it takes up.
    pub fn drifted(
        &mut self,
        uid: &Text,
        namespace: &Text,
        now: Timestamp,
        new_id: &mut dyn FnMut() -> String,
    ) -> Option<(Incident, Vec<Incident>)> {
        self.forget_old(now);
        self.drifted.insert(uid.clone());
        if !self.recent.iter().any(|(_, _, known)| known == uid) {
            self.recent.push_back((now, namespace.clone(), uid.clone()));
        }
        for incident in &mut self.incidents {
            if incident.reach.covers(namespace) {
                incident.drifted.insert(uid.clone());
            }
        }
        let (reach, counts) = self.exceeded(namespace)?;
        let drifted = self.recent.iter().filter(|(_, place, _)| reach.covers(place));
        let drifted = drifted.map(|(_, _, uid)| uid).filter(|uid| self.drifted.contains(*uid));
        let prefix = if reach == Reach::Cluster { CLUSTER } else { NAMESPACE };
        let drifted = drifted.cloned().collect();
        let mut incident = Incident { id: format!("{prefix}{}", new_id()), drifted, reach, counts };
        let taken_up = self.take_up(&mut incident);
        self.incidents.push(incident.clone());
        Some((incident, taken_up))
    }

    /// Takes the incidents of namespaces into one of the cluster.
    fn take_up(&mut self, incident: &mut Incident) -> Vec<Incident> {
        if incident.reach != Reach::Cluster {
            return Vec::new();
        }
        let taken_up = std::mem::take(&mut self.incidents);
        incident.drifted.extend(taken_up.iter().flat_map(|other| other.drifted.iter().cloned()));
        taken_up
    }

    /// The widest reach whose limit is exceeded and that no incident covers yet, with how many drifted
    /// and of how many guards.
    fn exceeded(&self, namespace: &Text) -> Option<(Reach, (usize, usize))> {
        if self.incidents.iter().any(|incident| incident.reach == Reach::Cluster) {
            return None;
        }
        let Limits { namespace_least, namespace_percent, cluster_least, cluster_percent, .. } = self.limits;
        let all = self.recent.len();
        let elsewhere = self.recent.iter().any(|(_, place, _)| place != namespace);
        if elsewhere && is_over(all, self.total, cluster_least, cluster_percent) {
            return Some((Reach::Cluster, (all, self.total.max(all))));
        }
        if self.holds(namespace).is_some() {
            return None;
        }
        let here = self.recent.iter().filter(|(_, place, _)| place == namespace).count();
        let of = self.guards.get(namespace).copied().unwrap_or_default();
        is_over(here, of, namespace_least, namespace_percent)
            .then(|| (Reach::Namespace(namespace.clone()), (here, of.max(here))))
    }

    /// Notes that a guard is drifted no more, or gone. Gives the incidents that are over by that.
    pub fn cleared(&mut self, uid: &str) -> Vec<Incident> {
        self.drifted.remove(uid);
        for incident in &mut self.incidents {
            incident.drifted.remove(uid);
        }
        self.end(|incident| incident.drifted.is_empty())
    }

    /// Notes that a person has seen an incident, by a guard of `namespace`: that of another namespace says
    /// nothing of it. Gives the incident when it was open.
    pub fn acknowledge(&mut self, id: &str, namespace: &Text) -> Option<Incident> {
        if !self.is_acknowledged(id, namespace) {
            self.acknowledged.push_back((id.to_owned(), namespace.clone()));
            if self.acknowledged.len() > ACKNOWLEDGED {
                self.acknowledged.pop_front();
            }
        }
        self.end(|incident| incident.id == id && incident.reach.covers(namespace)).pop()
    }

    /// Whether a person has seen an incident of a guard in `namespace`.
    fn is_acknowledged(&self, id: &str, namespace: &Text) -> bool {
        let reaches_all = id.starts_with(CLUSTER);
        self.acknowledged.iter().any(|(known, by)| known == id && (reaches_all || by == namespace))
    }

    /// Goes on with an incident that another process began, of which the status of a drifted guard tells. Gives
    /// the id of the one that the guard belongs to: that one, or the one that has taken it up. `None` when a
    /// person has acknowledged it, or when it is no id of ours.
    pub fn resume(&mut self, id: &str, uid: &Text, namespace: &Text) -> Option<String> {
        if self.is_acknowledged(id, namespace) {
            return None;
        }
        if let Some(wider) = self.incidents.iter_mut().find(|incident| incident.reach == Reach::Cluster)
            && id.starts_with(NAMESPACE)
        {
            wider.drifted.insert(uid.clone());
            return Some(wider.id.clone());
        }
        if let Some(known) = self.incidents.iter_mut().find(|incident| incident.id == id) {
            known.drifted.insert(uid.clone());
            return Some(known.id.clone());
        }
        let reach = match id {
            _ if id.starts_with(CLUSTER) => Reach::Cluster,
            _ if id.starts_with(NAMESPACE) => Reach::Namespace(namespace.clone()),
            _ => return None,
        };
        let drifted = BTreeSet::from([uid.clone()]);
        let mut incident = Incident { id: id.to_owned(), reach, drifted, counts: (0, 0) };
        // Whoever led before has told that these are taken up.
        self.take_up(&mut incident);
        self.incidents.push(incident);
        Some(id.to_owned())
    }

    /// Whether an incident is open.
    #[must_use]
    pub fn is_open(&self, id: &str) -> bool {
        self.incidents.iter().any(|incident| incident.id == id)
    }

    fn end(&mut self, is_over: impl Fn(&Incident) -> bool) -> Vec<Incident> {
        let (over, open) = std::mem::take(&mut self.incidents).into_iter().partition(is_over);
        self.incidents = open;
        let over: Vec<Incident> = over;
        for incident in &over {
            // What has been looked at counts for no other incident.
            let covered: Vec<_> =
                self.recent.iter().filter(|(_, place, _)| incident.reach.covers(place)).cloned().collect();
            self.recent.retain(|(_, place, _)| !incident.reach.covers(place));
            for (_, _, uid) in covered {
                self.drifted.remove(&uid);
            }
        }
        over
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some((since, _, _)) = self.recent.front()
            && now >= after(*since, self.limits.window)
        {
            if let Some((_, _, uid)) = self.recent.pop_front() {
                self.drifted.remove(&uid);
            }
        }
    }
}

/// Whether `count` is more than `least`, and more than `percent` of `of`.
fn is_over(count: usize, of: usize, least: usize, percent: usize) -> bool {
    count > least && count.saturating_mul(100) > of.saturating_mul(percent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn breaker(guards: &[(&str, usize)]) -> Breaker {
        let mut breaker = Breaker::new(Limits::default());
        breaker.census(guards.iter().map(|(namespace, count)| ((*namespace).into(), *count)));
        breaker
    }

    /// Lets so many guards of a namespace drift; gives the incident that begins, and by which of them.
    fn drift(breaker: &mut Breaker, namespace: &str, count: usize, now: i64) -> Option<(usize, Incident)> {
        let mut ids = 0;
        let mut new_id = || {
            ids += 1;
            format!("{namespace}{ids}")
        };
        let mut begun = None;
        for nth in 1..=count {
            let uid = Text::from(format!("{namespace}-{nth}"));
            if let Some((incident, _)) = breaker.drifted(&uid, &namespace.into(), at(now), &mut new_id) {
                assert!(begun.is_none(), "one incident, not one for each guard");
                begun = Some((nth, incident));
            }
        }
        begun
    }

    #[test]
    fn more_than_five_of_a_small_namespace_stop_it_and_no_other() {
        let mut breaker = breaker(&[("a", 8), ("b", 300)]);
        assert_eq!(drift(&mut breaker, "a", 5, 0), None);
        let (nth, incident) = drift(&mut breaker, "a", 8, 0).unwrap();
        assert_eq!((nth, incident.counts), (6, (6, 8)));
        assert_eq!(breaker.holds("a").unwrap().id, "namespace-a1");
        assert!(breaker.holds("b").is_none());
    }

    #[test]
    fn of_a_large_namespace_more_than_a_fifth_must_drift() {
        let mut breaker = breaker(&[("a", 100)]);
        assert_eq!(drift(&mut breaker, "a", 20, 0), None);
        assert_eq!(drift(&mut breaker, "a", 21, 0).unwrap().0, 21);
    }

    #[test]
    fn two_namespaces_together_stop_the_cluster() {
        let mut breaker = breaker(&[("a", 50), ("b", 50)]);
        assert_eq!(drift(&mut breaker, "a", 5, 0), None);
        assert_eq!(drift(&mut breaker, "b", 5, 0), None);
        let (nth, incident) = drift(&mut breaker, "b", 6, 0).unwrap();
        assert_eq!((nth, &incident.reach), (6, &Reach::Cluster));
        assert!(breaker.holds("c").is_some(), "everywhere");
    }

    #[test]
    fn an_incident_of_the_cluster_takes_up_those_of_namespaces() {
        let mut breaker = breaker(&[("a", 8), ("b", 50)]);
        drift(&mut breaker, "a", 8, 0).unwrap();
        drift(&mut breaker, "b", 2, 0);
        let third = breaker.drifted(&"b-3".into(), &"b".into(), at(0), &mut || "wide".to_owned());
        let (incident, taken_up) = third.unwrap();
        assert_eq!((incident.id.as_str(), taken_up.len()), ("cluster-wide", 1));
        assert_eq!(breaker.holds("a").unwrap().id, "cluster-wide");
        let resumed = breaker.resume("namespace-a1", &"a-1".into(), &"a".into());
        assert_eq!(resumed.as_deref(), Some("cluster-wide"), "it is taken up");
    }

    #[test]
    fn one_namespace_alone_never_stops_the_cluster() {
        let mut breaker = breaker(&[("a", 50), ("b", 50)]);
        assert!(matches!(drift(&mut breaker, "a", 50, 0).unwrap().1.reach, Reach::Namespace(_)));
        assert!(breaker.holds("b").is_none());
    }

    #[test]
    fn drift_that_began_long_ago_does_not_count() {
        let mut breaker = breaker(&[("a", 8)]);
        assert_eq!(drift(&mut breaker, "a", 5, 0), None);
        let late = breaker.drifted(&"x".into(), &"a".into(), at(300), &mut String::new);
        assert_eq!(late, None);
    }

    #[test]
    fn one_guard_that_drifts_again_and_again_is_one() {
        let mut breaker = breaker(&[("a", 8)]);
        for second in 0..100 {
            assert_eq!(breaker.drifted(&"x".into(), &"a".into(), at(second), &mut String::new), None);
        }
    }

    #[test]
    fn an_incident_is_over_when_none_of_its_guards_is_drifted() {
        let mut breaker = breaker(&[("a", 8)]);
        breaker.drifted(&"early".into(), &"a".into(), at(0), &mut String::new);
        assert!(breaker.cleared("early").is_empty());
        drift(&mut breaker, "a", 6, 0).unwrap();
        for nth in 1..6 {
            assert!(breaker.cleared(&format!("a-{nth}")).is_empty());
        }
        assert_eq!(breaker.cleared("a-6").len(), 1);
        assert!(breaker.holds("a").is_none());
        assert_eq!(drift(&mut breaker, "a", 5, 1), None, "what was looked at does not count again");
    }

    #[test]
    fn an_acknowledgement_ends_exactly_the_incident_that_it_names() {
        let mut breaker = breaker(&[("a", 8)]);
        drift(&mut breaker, "a", 6, 0).unwrap();
        assert_eq!(breaker.acknowledge("namespace-other", &"a".into()), None);
        assert_eq!(
            breaker.acknowledge("namespace-a1", &"b".into()),
            None,
            "who is nobody there says nothing"
        );
        let over = breaker.acknowledge("namespace-a1", &"a".into()).unwrap();
        assert_eq!(over.drifted.len(), 6);
        assert!(breaker.holds("a").is_none());
    }

    #[test]
    fn a_new_leader_goes_on_with_an_incident_unless_it_was_acknowledged() {
        let mut breaker = breaker(&[("a", 8)]);
        assert!(breaker.resume("namespace-7", &"x".into(), &"a".into()).is_some());
        assert!(breaker.resume("namespace-7", &"y".into(), &"a".into()).is_some());
        assert_eq!(breaker.holds("a").unwrap().drifted.len(), 2);
        assert!(breaker.resume("made up", &"x".into(), &"a".into()).is_none());
        breaker.acknowledge("namespace-7", &"a".into());
        assert!(breaker.resume("namespace-7", &"z".into(), &"a".into()).is_none());
        assert!(breaker.holds("a").is_none());
        breaker.acknowledge("namespace-8", &"b".into());
        assert!(
            breaker.resume("namespace-8", &"x".into(), &"a".into()).is_some(),
            "that of another namespace says nothing"
        );
        breaker.acknowledge("cluster-9", &"b".into());
        let resumed = breaker.resume("cluster-9", &"x".into(), &"a".into());
        assert_eq!(resumed, None, "one of the cluster is everybody's");
    }
}
