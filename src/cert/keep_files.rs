//! Keeps this replica's certificate in order where somebody else makes it: looks at the files again and
//! again, and serves what stands there once API servers trust it.
//!
//! [`crate::core::supplied`] decides. What always holds: what cannot be used takes the place of nothing;
//! and what a kubelet changes piece by piece is judged as a whole, so that half of it is never served.
//! The contents are compared, not the files watched: a mounted Secret is changed by another symbolic
//! link, and a watch of the old file never tells.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::files::{CertificateFiles, Contents, FilesError, Found};
use super::leaf::ServerIdentity;
use super::resolver::LeafResolver;
use super::trust::{BundleKeeper, in_order, trusted};
use crate::core::rotation::{Sight, Trust};
use crate::core::supplied::{Choice, Supplied, choose, sight};
use crate::store::Configurations;
use crate::telemetry::metrics::Metrics;

/// Longest and shortest pause between two looks at the files.
const LONGEST_LOOK: Duration = Duration::from_secs(3);
const SHORTEST_LOOK: Duration = Duration::from_millis(200);

/// What is kept, and where the results go.
pub struct FilesKeeper {
    /// The files.
    pub files: CertificateFiles,
    /// The name that the certificate must be for.
    pub identity: ServerIdentity,
    /// From the registration of an authority to the first certificate of it.
    pub settle: SignedDuration,
    /// Who writes the authorities into the registration.
    pub keeper: BundleKeeper,
    /// Where the certificate is served from.
    pub resolver: Arc<LeafResolver>,
    /// The authorities to be trusted, PEM; empty until they are known.
    pub bundle: watch::Sender<Bytes>,
    /// What is registered, and so trusted.
    pub configurations: watch::Receiver<Arc<Configurations>>,
    /// Tells when the certificate ends, and whether the files can be used.
    pub metrics: Arc<Metrics>,
}

type Authority = CertificateDer<'static>;

/// What this replica knows and serves.
struct Kept {
    sight: Sight<Authority>,
    /// What is served, and from which contents.
    served: Option<(Contents, Supplied<Authority>)>,
    /// Whether what was registered at the start has been taken over.
    began: bool,
    /// What is wrong with the files, and whether that has been said.
    problem: Option<(String, bool)>,
}

impl FilesKeeper {
    /// Runs for ever.
    pub async fn run(mut self) {
        let third = Duration::try_from(self.settle / 3).unwrap_or(LONGEST_LOOK);
        let pause = third.clamp(SHORTEST_LOOK, LONGEST_LOOK);
        let mut kept = Kept { sight: sight(self.settle), served: None, began: false, problem: None };
        loop {
            self.configurations.mark_unchanged();
            let files = self.files.clone();
            // A file system that hangs must hold up nothing else.
            let contents = tokio::task::spawn_blocking(move || files.read()).await;
            if let Ok(contents) = contents {
                self.look(&mut kept, contents, Timestamp::now());
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = self.configurations.changed() => {}
            }
        }
    }

    /// One look at the registration, at what stands in the files and at the clock.
    fn look(&self, kept: &mut Kept, contents: Result<Contents, FilesError>, now: Timestamp) {
        let trust = trusted(&self.configurations.borrow(), self.keeper);
        if let (false, Trust::Only(registered)) = (kept.began, &trust) {
            // Others may still serve certificates of what was registered before this process began.
            kept.sight.present(registered.iter().cloned(), now);
        }
        kept.began |= trust != Trust::Unknown;
        kept.sight.registered(trust, now);
        let name = self.identity.registered();
        let parse = |contents: Contents| Ok((self.files.parse(&contents, name, now)?, contents));
        match contents.and_then(parse) {
            Ok((found, contents)) => {
                self.good(kept);
                kept.sight.present(found.authorities.iter().cloned(), now);
                self.follow(kept, found, contents, now);
            }
            Err(error) => self.bad(kept, &error),
        }
        let served = kept.served.as_ref().map(|(_, served)| served.trusted_by.clone());
        if served.is_none() {
            // Nothing is registered before it can be answered.
            return;
        }
        kept.sight.present(served.into_iter().flatten(), now);
        let pem = Bytes::from(in_order(kept.sight.bundle()));
        self.bundle.send_if_modified(|before| std::mem::replace(before, pem.clone()) != pem);
    }

    /// Serves what was found, where it is something else than what is served and its time has come.
    fn follow(&self, kept: &mut Kept, found: Found, contents: Contents, now: Timestamp) {
        let served = kept.served.as_ref();
        if served.is_some_and(|(before, _)| *before == contents)
            || choose(&kept.sight, served.map(|(_, served)| served), &found.supplied, now) == Choice::Wait
        {
            return;
        }
        let until = found.supplied.validity.not_after;
        self.resolver.replace(found.leaf);
        self.metrics.certificate_end(until.as_second());
        tracing::info!(%until, "serving the certificate in the files");
        kept.served = Some((contents, found.supplied));
    }

    fn good(&self, kept: &mut Kept) {
        self.metrics.certificate_files_broken(false);
        if let Some((_, true)) = kept.problem.take() {
            tracing::info!("the certificate files can be used again");
        }
    }

    /// Says once what is wrong, when a second look finds the same: files that are written one after the
    /// other do not fit together for a moment.
    fn bad(&self, kept: &mut Kept, error: &FilesError) {
        let problem = error.to_string();
        match &mut kept.problem {
            Some((before, said)) if *before == problem => {
                self.metrics.certificate_files_broken(true);
                if !std::mem::replace(said, true) {
                    let serving = kept.served.is_some();
                    tracing::error!(%error, reason = error.reason(), serving, "the certificate files cannot be used; what was served before is served on");
                }
            }
            _ => kept.problem = Some((problem, false)),
        }
    }
}

#[cfg(test)]
#[path = "keep_files_tests.rs"]
mod tests;
