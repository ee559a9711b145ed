//! How fast the canonical form is, against SHA-256 alone on the same canonical bytes.
//!
//! Both run in turn in one thread, and the median of many rounds stands: whatever else the machine
//! does meets both alike.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::ensure;
use driftguard::core::canonical::{canonical_object, hash_object};
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use sha2::{Digest as _, Sha256};

use crate::content::{self, Shape};
use crate::figures::{Better, Figures};
use crate::median::median;
use crate::size::Size;
use crate::table::Table;

/// Share of SHA-256's own speed that is aimed for.
const TARGET: f64 = 0.7;
/// Turns whose median stands.
const ROUNDS: usize = 301;
/// How long one side's turn lasts, roughly: long against the clock, short against what disturbs.
const TURN: Duration = Duration::from_millis(2);

/// Measures every size on the usual mix, and every kind of file alone at 200 KiB.
pub(crate) fn run(figures: &mut Figures) -> anyhow::Result<Table> {
    let mut table = Table::new(
        "canonical form against SHA-256 alone on the same bytes",
        &["content", "canonical MiB/s", "sha256 MiB/s", "ratio", "target"],
    );
    for size in Size::ALL {
        let name = format!("canonical-{size}");
        let speed = measure(&Shape::MIX, size.bytes())?;
        table.row(vec![
            size.to_string(),
            speed.ours(),
            speed.alone(),
            format!("{:.2}", speed.ratio),
            "0.70".into(),
        ]);
        figures.with_target(&name, speed.ratio, TARGET, Better::Higher, "ratio to SHA-256");
    }
    for shape in Shape::ALL {
        let size = Size::ALL[1];
        let speed = measure(&[shape], size.bytes())?;
        let label = format!("{size} {}", shape.name());
        table.row(vec![label, speed.ours(), speed.alone(), format!("{:.2}", speed.ratio), String::new()]);
        let name = format!("canonical-{}-{size}", shape.name());
        figures.without_target(&name, speed.ratio, Better::Higher, "ratio to SHA-256");
    }
    Ok(table)
}

struct Speed {
    /// SHA-256's time over ours.
    ratio: f64,
    ours: f64,
    alone: f64,
}

impl Speed {
    fn ours(&self) -> String {
        format!("{:.0}", self.ours)
    }

    fn alone(&self) -> String {
        format!("{:.0}", self.alone)
    }
}

fn measure(shapes: &[Shape], bytes: usize) -> anyhow::Result<Speed> {
    let object = content::object("settings", &content::files(shapes, bytes));
    let scope = Scope::new("", "ConfigMap", PathFilter::everything());
    let canonical = canonical_object(&object, &scope)?;
    let expected: [u8; 32] = Sha256::digest(&canonical).into();
    let hash = hash_object(&object, &scope)?;
    let hex: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(hash.to_string() == hex, "the two sides do not hash the same bytes");

    let ours = || {
        drop(black_box(hash_object(black_box(&object), &scope)));
    };
    let alone = || {
        black_box(Sha256::digest(black_box(&canonical)));
    };
    let times = turns(&alone);
    let (mut our_times, mut alone_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (alone, ours) = (time(&alone, times), time(&ours, times));
        our_times.push(ours);
        alone_times.push(alone);
        ratios.push(alone / ours);
    }
    let mebibytes = canonical.len() as f64 / f64::from(1 << 20);
    Ok(Speed {
        ratio: median(&mut ratios),
        ours: mebibytes / median(&mut our_times),
        alone: mebibytes / median(&mut alone_times),
    })
}

/// How often `work` runs in one turn.
fn turns(work: &dyn Fn()) -> u32 {
    let mut times = 1;
    while time(work, times) * f64::from(times) < TURN.as_secs_f64() {
        times *= 2;
    }
    times
}

/// Seconds that one call of `work` takes, on average over `times`.
fn time(work: &dyn Fn(), times: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        work();
    }
    start.elapsed().as_secs_f64() / f64::from(times)
}
