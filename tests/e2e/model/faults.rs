//! What goes wrong in a run: replicas that die, halt and come back, an API server and an etcd that do, and somebody
//! who writes straight into etcd.

use std::time::Duration;

use anyhow::{Context as _, Result};
use driftguard_control_plane::ApiServer;
use driftguard_control_plane::guardian::Signal;
use serde_json::Value;

use super::play::{Dice, Outcome, Play};
use super::world::{SPOTS, Spot, VARIANTS};
use crate::fleet::SYSTEM;
use crate::installation::LIMIT;

/// How often one object is changed in etcd: what is put back and undone three times is a fight, which is put back
/// ever more rarely.
const STRAIGHT: usize = 2;

/// Lets one replica after the other fail until the run is over; what was ended runs again then.
pub(crate) fn replicas(play: &Play) -> Result<()> {
    chaos(play, "replicas", &REPLICAS, (500, 4_000))
}

/// The same of API servers and etcd, more rarely: nobody can write meanwhile.
pub(crate) fn servers(play: &Play) -> Result<()> {
    chaos(play, "servers", &SERVERS, (3_000, 12_000))
}

fn chaos(play: &Play, who: &str, faults: &[(&str, Fault)], (from, to): (usize, usize)) -> Result<()> {
    let mut dice = Dice::new(play.seed, who);
    while play.goes_on(dice.millis(from, to)) {
        let (what, fail) = dice.one_of(faults);
        let pause = dice.millis(100, 3_000);
        let which = dice.below(2);
        note(play, &format!("{what} ({which}) for {pause:?}"));
        fail(play, which, pause).with_context(|| format!("{what} ({which}) for {pause:?}"))?;
        note(play, &format!("{what}: over"));
    }
    Ok(())
}

/// Lets something fail for a while: the first or second of its kind.
type Fault = fn(&Play, usize, Duration) -> Result<()>;

const REPLICAS: [(&str, Fault); 6] = [
    ("SIGKILL", |play, replica, pause| bounce(play, &[replica], Signal::Kill, pause)),
    ("SIGTERM", |play, replica, pause| bounce(play, &[replica], Signal::Terminate, pause)),
    ("SIGKILL of the leader", |play, replica, pause| {
        bounce(play, &[leader(play, replica)], Signal::Kill, pause)
    }),
    ("SIGKILL of both", |play, _, pause| bounce(play, &[0, 1], Signal::Kill, pause)),
    ("SIGSTOP", halt),
    // Its Lease runs out meanwhile: another one leads when it goes on.
    ("SIGSTOP of the leader past its lease", |play, replica, pause| {
        halt(play, leader(play, replica), pause + Duration::from_secs(15))
    }),
];

const SERVERS: [(&str, Fault); 5] = [
    ("SIGKILL of the API server", |play, which, pause| restart(play, which, pause, ApiServer::kill)),
    ("SIGTERM of the API server", |play, which, pause| restart(play, which, pause, ApiServer::stop)),
    ("SIGSTOP of the API server", |play, which, pause| {
        let server = server(play, which);
        server.pause()?;
        play.goes_on(pause);
        server.resume()
    }),
    ("SIGSTOP of etcd", |play, _, pause| {
        play.fleet.plane.etcd().pause()?;
        play.goes_on(pause);
        play.fleet.plane.etcd().resume()
    }),
    ("SIGKILL of etcd", |play, _, pause| {
        play.fleet.plane.etcd().stop()?;
        play.goes_on(pause);
        play.fleet.plane.etcd().restart()
    }),
];

/// One of the API servers; there may be one only.
fn server(play: &Play, which: usize) -> &ApiServer {
    let servers = play.fleet.plane.api_servers();
    &servers[which % servers.len()]
}

fn restart(play: &Play, which: usize, pause: Duration, end: fn(&ApiServer) -> Result<()>) -> Result<()> {
    let server = server(play, which);
    end(server)?;
    play.goes_on(pause);
    server.start_again()
}

fn note(play: &Play, what: &str) {
    play.does("faults", what, None, || Outcome::Stored(0));
}

fn bounce(play: &Play, replicas: &[usize], signal: Signal, pause: Duration) -> Result<()> {
    for &replica in replicas {
        play.fleet.running[replica].signal(signal)?;
    }
    for &replica in replicas {
        play.fleet.running[replica].wait(LIMIT)?;
    }
    play.goes_on(pause);
    replicas.iter().try_for_each(|&replica| play.fleet.start_only(replica))
}

fn halt(play: &Play, replica: usize, pause: Duration) -> Result<()> {
    play.fleet.running[replica].signal(Signal::Stop)?;
    play.goes_on(pause);
    play.fleet.running[replica].signal(Signal::Continue)
}

/// The replica that leads, or this one when nobody can be asked.
fn leader(play: &Play, or: usize) -> usize {
    let key = format!("/registry/leases/{SYSTEM}/driftguard");
    let read = || -> Option<Value> { serde_json::from_slice(&play.fleet.plane.etcd().get(&key).ok()??).ok() };
    let holder = read().map(|lease| lease["spec"]["holderIdentity"].to_string()).unwrap_or_default();
    play.fleet.running.iter().position(|process| holder.contains(process.name())).unwrap_or(or)
}

/// Writes straight into etcd until the run is over, each object a few times.
pub(crate) fn straight(play: &Play) -> Result<()> {
    let mut dice = Dice::new(play.seed, "straight");
    let mut left = [STRAIGHT; SPOTS.len()];
    while play.goes_on(dice.millis(300, 3_000)) {
        let number = dice.below(SPOTS.len());
        let variant = dice.below(VARIANTS + 1);
        let deletes = dice.often(2);
        if left[number] > 0 {
            left[number] -= 1;
            write(play, &SPOTS[number], variant, deletes);
        }
    }
    Ok(())
}

fn write(play: &Play, spot: &Spot, variant: usize, deletes: bool) {
    let (etcd, key) = (play.fleet.plane.etcd(), spot.watched().object);
    let verb = if deletes { "deletes" } else { "puts" };
    let write = || -> Result<Option<i64>> {
        if deletes {
            return etcd.delete_at(&key).inspect_err(|_| play.may_have_written_straight(&key, None));
        }
        let Some(stored) = etcd.get(&key)? else { return Ok(None) };
        let mut object: Value = serde_json::from_slice(&stored)?;
        let manifest = spot.manifest(variant);
        match object["spec"]["template"]["spec"]["containers"].as_array_mut().and_then(|all| all.first_mut())
        {
            // The rest of it is what the API server filled in.
            Some(container) => {
                container["image"] = manifest["spec"]["template"]["spec"]["containers"][0]["image"].clone();
            }
            None => {
                for field in ["data", "binaryData", "spec"] {
                    if let Some(value) = manifest.get(field) {
                        object[field] = value.clone();
                    }
                }
            }
        }
        let bytes = object.to_string().into_bytes();
        let put = etcd.put_at(&key, &bytes).map(Some);
        put.inspect_err(|_| play.may_have_written_straight(&key, Some(bytes)))
    };
    let act = || match write() {
        Ok(Some(revision)) => {
            play.wrote_straight(revision);
            Outcome::Stored(revision)
        }
        Ok(None) => Outcome::Refused("it is not there".to_owned()),
        Err(error) => Outcome::Unsure(format!("{error:#}")),
    };
    play.does("straight", format!("{verb} {} {variant} in etcd", spot.object()), None, act);
}
