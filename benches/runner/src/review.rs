//! The review that is replayed: an update as an API server sent it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::value::RawValue;

use crate::content;
use crate::size::Size;

/// The body of one admission review.
#[derive(Debug)]
pub(crate) struct Review {
    /// Of which ConfigMap.
    pub size: Size,
    file: PathBuf,
    body: Vec<u8>,
}

impl Review {
    /// Reads the body from `file`, where it stays for the load generator.
    pub(crate) fn read(size: Size, file: &Path) -> anyhow::Result<Self> {
        let body = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(
            body.len() > 2 * size.bytes(),
            "the review in {} has {} bytes: it holds no object and old object of {size}",
            file.display(),
            body.len()
        );
        Ok(Self { size, file: file.to_owned(), body })
    }

    /// Where it lies.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Its bytes.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The new object, as it stands in the review.
    pub(crate) fn object(&self) -> anyhow::Result<&str> {
        let body: HashMap<&str, &RawValue> = serde_json::from_slice(&self.body)?;
        let request: HashMap<&str, &RawValue> =
            serde_json::from_str(body.get("request").context("the review has no request")?.get())?;
        Ok(request.get("object").context("the review has no object")?.get())
    }

    /// The same review with one letter of the new object's content changed.
    pub(crate) fn altered(&self) -> anyhow::Result<Vec<u8>> {
        let mut body = self.body.clone();
        let at = find(&body, b"\"data\":{", 0)
            .and_then(|data| find(&body, content::WORD.as_bytes(), data))
            .context("the review holds no word that could be altered")?;
        body[at..at + content::WORD.len()].copy_from_slice(content::ALTERED.as_bytes());
        Ok(body)
    }
}

fn find(text: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    text[from..].windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
}
