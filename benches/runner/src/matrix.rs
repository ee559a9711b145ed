//! The measurement: every size, number of connections and protocol, the contenders in turn.
//!
//! Contenders alternate within one run (A B C, B C A, ...), so that whatever else the machine does
//! meets all of them; each figure is a median over rounds, a ratio the median of the rounds' ratios.

use crate::contender::{Contender, Turn};
use crate::figures::{Better, Figures};
use crate::h2load::{Load, Protocol};
use crate::median::median;
use crate::review::Review;
use crate::table::Table;

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Turns of each contender in each cell.
    pub rounds: usize,
    /// How long the no-op's turn lasts, roughly; twice that where there is a target.
    pub seconds: f64,
    /// Numbers of connections.
    pub connections: Vec<u32>,
}

/// The load at which figures have targets: as in a cluster, where API servers speak HTTP/1.1 to a
/// Service over several connections.
pub(crate) const TARGET_LOAD: Load = Load { protocol: Protocol::Http1, connections: 10, streams: 1 };
/// Most CPU for a request, as a ratio to the no-op, by the name of the size.
const CPU_TARGETS: [(&str, f64); 3] = [("2KiB", 1.3), ("200KiB", 1.5), ("1MiB", 1.5)];

/// How long memory is watched.
const WATCH_SECONDS: f64 = 3.0;
/// Most resident memory of DriftGuard under the load that has targets, in MiB.
const MEMORY_TARGET: f64 = 40.0;

/// Memory of each contender under the load that has targets, at the middle size. Call it first: an
/// allocator keeps what larger reviews needed.
pub(crate) fn memory(
    contenders: &[Contender],
    reviews: &[Review],
    figures: &mut Figures,
) -> anyhow::Result<Table> {
    let review = &reviews[reviews.len() / 2];
    let title = format!("memory with {TARGET_LOAD} connections at {}", review.size);
    let mut table = Table::new(&title, &["server", "idle MiB", "under load MiB"]);
    for contender in contenders {
        let idle = contender.memory()?.resident;
        let requests = requests(contender, TARGET_LOAD, review, WATCH_SECONDS)?;
        let loaded = contender.turn(TARGET_LOAD, review, requests)?.resident;
        table.row(vec![contender.name.to_owned(), format!("{idle:.1}"), format!("{loaded:.1}")]);
        if contender.name == "driftguard" {
            figures.with_target("memory-under-load", loaded, MEMORY_TARGET, Better::Lower, "MiB");
            figures.without_target("memory-idle", idle, Better::Lower, "MiB");
        } else {
            let name = format!("{}-memory-under-load", contender.name);
            figures.without_target(&name, loaded, Better::Lower, "MiB");
        }
    }
    Ok(table)
}

/// The most memory that each contender ever used. Call it last.
pub(crate) fn peak(contenders: &[Contender], figures: &mut Figures) -> anyhow::Result<Table> {
    let mut table = Table::new("memory over the whole run", &["server", "now MiB", "most MiB"]);
    for contender in contenders {
        let memory = contender.memory()?;
        let cells = [format!("{:.1}", memory.resident), format!("{:.1}", memory.peak)];
        table.row([contender.name.to_owned()].into_iter().chain(cells).collect());
        if contender.name == "driftguard" {
            figures.without_target("memory-peak", memory.peak, Better::Lower, "MiB");
        }
    }
    Ok(table)
}

/// Measures all cells and gives one table for each size.
pub(crate) fn run(
    plan: &Plan,
    contenders: &[Contender],
    reviews: &[Review],
    figures: &mut Figures,
) -> anyhow::Result<Vec<Table>> {
    let mut cells = Vec::new();
    for review in reviews {
        for load in loads(plan) {
            let seconds = if is_target(load) { 2.0 * plan.seconds } else { plan.seconds };
            let requests = requests(&contenders[0], load, review, seconds)?;
            cells.push(Cell { review, load, requests, turns: vec![Vec::new(); contenders.len()] });
        }
    }
    for round in 0..plan.rounds {
        for cell in &mut cells {
            for offset in 0..contenders.len() {
                let place = (round + offset) % contenders.len();
                let turn = contenders[place].turn(cell.load, cell.review, cell.requests)?;
                cell.turns[place].push(turn);
            }
        }
        eprintln!("round {} of {} done", round + 1, plan.rounds);
    }
    let names: Vec<&'static str> = contenders.iter().map(|contender| contender.name).collect();
    for cell in &cells {
        cell.report(&names, figures);
    }
    Ok(reviews.iter().map(|review| table(review, &cells, &names)).collect())
}

fn loads(plan: &Plan) -> Vec<Load> {
    let mut loads = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for &connections in &plan.connections {
            loads.push(Load { protocol, connections, streams: 1 });
        }
    }
    // An API server puts everything on one connection when it may.
    loads.push(Load { protocol: Protocol::Http2, connections: 1, streams: 10 });
    loads
}

fn is_target(load: Load) -> bool {
    load.protocol == TARGET_LOAD.protocol && load.connections == TARGET_LOAD.connections && load.streams == 1
}

/// How many requests keep `contender` busy for `seconds`.
fn requests(contender: &Contender, load: Load, review: &Review, seconds: f64) -> anyhow::Result<u64> {
    let least = u64::from(load.connections * load.streams) * 10;
    let mut requests = least;
    loop {
        let rate = contender.turn(load, review, requests)?.outcome.rate;
        let wanted = ((rate * seconds) as u64).max(least);
        // Connecting takes its part of a short turn, so that the first guess is too low.
        if wanted <= 2 * requests {
            return Ok(wanted);
        }
        requests = wanted;
    }
}

struct Cell<'a> {
    review: &'a Review,
    load: Load,
    requests: u64,
    /// By contender, then by round.
    turns: Vec<Vec<Turn>>,
}

impl Cell<'_> {
    fn median(&self, contender: usize, value: impl Fn(&Turn) -> f64) -> f64 {
        median(&mut self.turns[contender].iter().map(value).collect::<Vec<_>>())
    }

    /// CPU for a request over that of the no-op.
    fn ratio(&self, contender: usize) -> f64 {
        let rounds = self.turns[contender].iter().zip(&self.turns[0]);
        median(&mut rounds.map(|(own, floor)| own.cpu / floor.cpu).collect::<Vec<_>>())
    }

    fn report(&self, names: &[&str], figures: &mut Figures) {
        let size = self.review.size.to_string();
        let unit = "ratio to no-op";
        for (place, name) in names.iter().enumerate().skip(1) {
            let ratio = self.ratio(place);
            if is_target(self.load) {
                let target = CPU_TARGETS.iter().find(|(of, _)| *of == size).filter(|_| *name == "driftguard");
                match target {
                    Some((_, target)) => {
                        figures.with_target(
                            &format!("review-cpu-{size}"),
                            ratio,
                            *target,
                            Better::Lower,
                            unit,
                        );
                    }
                    None => {
                        figures.without_target(&format!("{name}-cpu-{size}"), ratio, Better::Lower, unit);
                    }
                }
            } else if *name == "driftguard" && self.load.streams == 10 {
                figures.without_target(&format!("review-cpu-http2-{size}"), ratio, Better::Lower, unit);
            }
        }
    }
}

fn table(review: &Review, cells: &[Cell<'_>], names: &[&str]) -> Table {
    let title = format!("ConfigMap of {}, review of {} bytes", review.size, review.body().len());
    let heading = [
        "protocol",
        "connections",
        "server",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
        "CPU us",
        "to no-op",
    ];
    let mut table = Table::new(&title, &heading);
    for cell in cells.iter().filter(|cell| cell.review.size == review.size) {
        for (place, name) in names.iter().enumerate() {
            table.row(vec![
                cell.load.protocol.to_string(),
                cell.load.to_string(),
                (*name).to_owned(),
                format!("{:.0}", cell.median(place, |turn| turn.outcome.rate)),
                format!("{:.2}", cell.median(place, |turn| turn.outcome.p50)),
                format!("{:.2}", cell.median(place, |turn| turn.outcome.p99)),
                format!("{:.1}", cell.median(place, |turn| turn.resident)),
                format!("{:.1}", cell.median(place, |turn| turn.cpu)),
                format!("{:.2}", cell.ratio(place)),
            ]);
        }
    }
    table
}
