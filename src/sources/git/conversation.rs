//! What is said to a server: which refs it has, then as little as leads to one file.
//!
//! A server that can leave contents out is asked for the commit with its folders first, and then for the one
//! file: the size of the repository does not matter. Any other sends the whole commit, within the limits.

use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::hash::Kind as HashKind;
use gix::objs::tree::EntryKind;
use gix::objs::{CommitRefIter, Kind, TagRefIter, TreeRefIter};
use gix::protocol::fetch::negotiate::{Action, Round, one_round};
use gix::protocol::fetch::{Arguments, Context, Negotiate, Options, Response, Shallow, Tags};
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::transport::client::blocking_io::Transport;
use gix::protocol::transport::{Protocol, Service, packetline};
use gix::protocol::{Handshake, LsRefsCommand};
use gix::utils::progress::Discard;

use super::super::SourceError;
use super::pack::{Bounds, Pack, PackError};
use super::wanted::{FilePath, Reference};
use super::wire::Wire;

/// Tags that may name tags before a commit must come.
const TAGS: usize = 5;
/// Largest commit, tag or folder that is read, in bytes.
const STRUCTURE: u64 = 16 << 20;
/// How we call ourselves.
const AGENT: &str = concat!("git/driftguard-", env!("CARGO_PKG_VERSION"));
/// Longest message of a server that is repeated, in characters.
const QUOTED: usize = 200;

/// Why there is no file.
pub(super) enum Trouble {
    /// It is known why.
    Known(SourceError),
    /// The conversation broke off. Whoever carried it may know why; else this is what there is to say.
    Broken(SourceError),
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        Self::Known(error)
    }
}

/// What is wanted of a server, and what its answer may cost.
pub(super) struct Wanted<'a> {
    pub(super) reference: &'a Reference,
    pub(super) path: &'a FilePath,
    /// Largest file, in bytes.
    pub(super) blob: u64,
    /// What all that is sent may unpack to, in bytes.
    pub(super) unpacked: u64,
    /// The server, for sentences.
    pub(super) host: &'a str,
    /// What no sentence may repeat.
    pub(super) secrets: &'a [String],
    /// What sentences leave out: host and ref of the Secret.
    pub(super) left_out: &'a [String],
}

/// Asks a server for a file. `folder` is empty and private.
pub(super) fn file(
    mut transport: impl Transport,
    wire: &Wire,
    wanted: &Wanted<'_>,
    folder: &Path,
) -> Result<Vec<u8>, Trouble> {
    let mut conversation = Conversation::begin(&mut transport, wire, wanted, folder)?;
    let refs = conversation.refs()?;
    let tip = wanted.reference.choose(&refs)?;
    let commit = conversation.pack(tip, Depth::Commit)?;
    let blob = find(&commit, tip, wanted)?;
    if commit.has(&blob) {
        return Ok(content(&commit, &blob, wanted)?);
    }
    let file = conversation.pack(blob, Depth::Object)?;
    Ok(content(&file, &blob, wanted)?)
}

/// How much is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// One commit without its history; without contents where the server can leave them out.
    Commit,
    /// One object.
    Object,
}

struct Conversation<'a, T> {
    transport: &'a mut T,
    handshake: Handshake,
    wire: &'a Wire,
    wanted: &'a Wanted<'a>,
    folder: &'a Path,
}

impl<'a, T: Transport> Conversation<'a, T> {
    fn begin(
        transport: &'a mut T,
        wire: &'a Wire,
        wanted: &'a Wanted<'a>,
        folder: &'a Path,
    ) -> Result<Self, Trouble> {
        let nobody_asked = |_| Ok(None);
        let handshake = gix::protocol::handshake(
            &mut *transport,
            Service::UploadPack,
            nobody_asked,
            Vec::new(),
            &mut Discard,
        )
        .map_err(|error| broken(wire, wanted, &error, "does not answer as a git server does"))?;
        let format = handshake.capabilities.capability("object-format").and_then(|format| format.value());
        if format.is_some_and(|format| format != "sha1") {
            return Err(SourceError::Invalid(format!(
                "the repository of {} is one of SHA-256 objects, which are not read",
                wanted.host
            ))
            .into());
        }
        Ok(Self { transport, handshake, wire, wanted, folder })
    }

    /// The refs that may be the wanted one.
    fn refs(&mut self) -> Result<Vec<Ref>, Trouble> {
        if let Some(refs) = self.handshake.refs.take() {
            return Ok(refs);
        }
        let names = self.wanted.reference.names();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut prefixes = RefPrefixes::new();
        prefixes.extend(names.into_iter().map(Into::into));
        LsRefsCommand::new(Some(prefixes), &self.handshake.capabilities, agent())
            .invoke_blocking(&mut *self.transport, &mut Discard, false)
            .map_err(|error| broken(self.wire, self.wanted, &error, "does not list its branches"))
    }

    /// Has an object sent, with what belongs to it.
    fn pack(&mut self, id: ObjectId, depth: Depth) -> Result<Pack, Trouble> {
        let (name, shallow) = match depth {
            Depth::Commit => ("commit", Shallow::DepthAtRemote(NonZeroU32::MIN)),
            Depth::Object => ("object", Shallow::NoChange),
        };
        let file = self.folder.join(format!("{name}.pack"));
        let version = self.handshake.server_protocol_version;
        // Servers of older protocols need not give out what no ref names, so the file might not be had afterwards.
        let filter = depth == Depth::Commit && version == Protocol::V2;
        let received = gix::protocol::fetch(
            &mut One { id, filter },
            |pack, _, _| {
                let copied = File::create_new(&file).and_then(|mut file| io::copy(pack, &mut file));
                copied.map(|_| true).map_err(gix::Error::from_error)
            },
            Discard,
            self.wire.stop(),
            Context {
                handshake: &mut self.handshake,
                transport: &mut *self.transport,
                user_agent: agent(),
                trace_packetlines: false,
            },
            Options {
                shallow_file: self.folder.join(format!("{name}.shallow")),
                shallow: &shallow,
                tags: Tags::None,
                reject_shallow_remote: false,
            },
        );
        let what = match (self.wanted.reference, depth) {
            (Reference::Commit(_), Depth::Commit) => {
                "does not give out that commit; it may be gone, or the server gives out branches and tags only"
            }
            _ => "does not send the commit",
        };
        let received = received.map_err(|error| broken(self.wire, self.wanted, &error, what))?;
        if received.is_none() {
            return Err(Trouble::Broken(SourceError::Invalid(format!("{} sends nothing", self.wanted.host))));
        }
        self.open(&file)
    }

    fn open(&self, file: &Path) -> Result<Pack, Trouble> {
        let bounds = Bounds { all: self.wanted.unpacked, each: self.wanted.blob.max(STRUCTURE) };
        Pack::open(file, bounds, self.wire.stop()).map_err(|error| {
            let cause = self.wire.cause();
            cause.unwrap_or_else(|| unusable(&error, self.wanted)).into()
        })
    }
}

fn agent() -> (&'static str, Option<String>) {
    ("agent", Some(AGENT.to_owned()))
}

/// Wants one object and has nothing.
struct One {
    id: ObjectId,
    filter: bool,
}

impl Negotiate for One {
    fn mark_complete_and_common_ref(&mut self) -> gix::Result<Action> {
        Ok(Action::MustNegotiate { remote_ref_target_known: Vec::new() })
    }

    fn add_wants(&mut self, arguments: &mut Arguments, _known: &[bool]) -> bool {
        if self.filter && arguments.can_use_filter() {
            arguments.filter("blob:none");
        }
        arguments.want(self.id);
        true
    }

    fn one_round(
        &mut self,
        _state: &mut one_round::State,
        _arguments: &mut Arguments,
        _previous: Option<&Response>,
    ) -> gix::Result<(Round, bool)> {
        let nothing = Round {
            haves_sent: 0,
            in_vain: 0,
            haves_to_send: 0,
            previous_response_had_at_least_one_in_common: false,
        };
        Ok((nothing, true))
    }
}

/// The object of the wanted file, found from a commit or from a tag that leads to one.
fn find(pack: &Pack, tip: ObjectId, wanted: &Wanted<'_>) -> Result<ObjectId, SourceError> {
    let damaged = |_| unusable(&PackError::Damaged, wanted);
    let mut id = tip;
    for _ in 0..=TAGS {
        let (kind, data) = pack.object(&id, STRUCTURE).map_err(|error| unusable(&error, wanted))?;
        match kind {
            Kind::Commit => {
                let tree = CommitRefIter::from_bytes(&data, HashKind::Sha1).tree_id().map_err(damaged)?;
                return in_tree(pack, tree, wanted);
            }
            Kind::Tag => id = TagRefIter::from_bytes(&data, HashKind::Sha1).target_id().map_err(damaged)?,
            Kind::Tree | Kind::Blob => break,
        }
    }
    Err(SourceError::Invalid(format!("{} leads to no commit", wanted.reference)))
}

fn in_tree(pack: &Pack, top: ObjectId, wanted: &Wanted<'_>) -> Result<ObjectId, SourceError> {
    let path = wanted.path;
    let missing = || SourceError::Invalid(format!("{} has no file {path}", wanted.reference));
    let invalid =
        |part: &str, what: &str| SourceError::Invalid(format!("{part} in the path {path} is {what}"));
    let Some((file, folders)) = path.parts().split_last() else { return Err(missing()) };
    let mut tree = top;
    for part in folders {
        match entry(pack, tree, part, wanted)?.ok_or_else(missing)? {
            (EntryKind::Tree, id) => tree = id,
            (EntryKind::Link, _) => return Err(invalid(part, "a symbolic link, which is not followed")),
            (EntryKind::Commit, _) => return Err(invalid(part, "a submodule, which is not fetched")),
            (EntryKind::Blob | EntryKind::BlobExecutable, _) => return Err(missing()),
        }
    }
    match entry(pack, tree, file, wanted)?.ok_or_else(missing)? {
        (EntryKind::Blob | EntryKind::BlobExecutable, id) => Ok(id),
        (EntryKind::Link, _) => Err(invalid(file, "a symbolic link, which is not followed")),
        (EntryKind::Commit, _) => Err(invalid(file, "a submodule, which is not fetched")),
        (EntryKind::Tree, _) => Err(invalid(file, "a folder; name a file")),
    }
}

/// What a folder has under a name.
fn entry(
    pack: &Pack,
    tree: ObjectId,
    name: &str,
    wanted: &Wanted<'_>,
) -> Result<Option<(EntryKind, ObjectId)>, SourceError> {
    let damaged = || unusable(&PackError::Damaged, wanted);
    let (kind, data) = pack.object(&tree, STRUCTURE).map_err(|error| unusable(&error, wanted))?;
    if kind != Kind::Tree {
        return Err(damaged());
    }
    for entry in TreeRefIter::from_bytes(&data, HashKind::Sha1) {
        let entry = entry.map_err(|_| damaged())?;
        if entry.filename.as_bytes() == name.as_bytes() {
            return Ok(Some((entry.mode.kind(), entry.oid.to_owned())));
        }
    }
    Ok(None)
}

fn content(pack: &Pack, blob: &ObjectId, wanted: &Wanted<'_>) -> Result<Vec<u8>, SourceError> {
    match pack.object(blob, wanted.blob) {
        Ok((Kind::Blob, content)) => Ok(content),
        Ok(_) => Err(unusable(&PackError::Damaged, wanted)),
        Err(error @ PackError::ObjectTooLarge { .. }) => {
            Err(SourceError::Invalid(format!("the file {} {error}", wanted.path)))
        }
        Err(error) => Err(unusable(&error, wanted)),
    }
}

fn unusable(error: &PackError, wanted: &Wanted<'_>) -> SourceError {
    SourceError::Invalid(format!("what {} sent {error}", wanted.host))
}

/// A conversation that broke off: what is known of it, else what the server said.
fn broken(wire: &Wire, wanted: &Wanted<'_>, error: &gix::Error, what: &str) -> Trouble {
    if let Some(cause) = wire.cause() {
        return Trouble::Known(cause);
    }
    let said = error.iter_errors().find_map(message).unwrap_or_default();
    let said = wanted.left_out.iter().fold(said, |said, text| said.replace(text.as_str(), "..."));
    Trouble::Broken(SourceError::Invalid(format!("{} {what}{}", wanted.host, quoted(&said, wanted.secrets))))
}

/// The text of an `ERR` line, which git servers send when they refuse something.
fn message(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(said) = error.downcast_ref::<packetline::read::Error>() {
        return Some(said.message.to_str_lossy().into_owned());
    }
    let io = error.downcast_ref::<io::Error>()?.get_ref()?;
    Some(io.downcast_ref::<packetline::read::Error>()?.message.to_str_lossy().into_owned())
}

/// A server's message as it may stand in a status: short, plain, and none that repeats what we sent it.
fn quoted(said: &str, secrets: &[String]) -> String {
    let plain: String = said.trim().chars().filter(|char| !char.is_control()).collect();
    if plain.is_empty() {
        return String::new();
    }
    if secrets.iter().any(|secret| plain.contains(secret.as_str())) {
        return "; what it says repeats a credential".to_owned();
    }
    format!(": {}", plain.chars().take(QUOTED).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_repeats_a_credential_is_not_told() {
        let secrets = ["hunter2".to_owned()];
        assert_eq!(quoted("no such ref\u{1b}[0m\n", &secrets), ": no such ref[0m");
        assert!(!quoted("you sent hunter2", &secrets).contains("hunter2"));
        assert!(!quoted("you sent hun\u{7}ter2", &secrets).contains("hunter2"));
        assert_eq!(quoted(" \n", &secrets), "");
    }
}
