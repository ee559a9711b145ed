//! What one look at a target means.

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Truth {
    /// As `metav1.Condition` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl std::str::FromStr for Truth {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::True, Self::False, Self::Unknown].into_iter().find(|one| one.as_str() == text).ok_or(())
    }
}

/// The reason of the condition `Drifted`. A word that has been released keeps its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// False: the content is approved.
    InSync,
    /// False: the content was the approved one before the guard was changed, a moment ago.
    AwaitingApply,
    /// False: the stored content is the approved one; another version of the API server shows it otherwise.
    RepresentationChanged,
    /// True: the content is not approved.
    ContentDiffers,
    /// True: the same, and it changed while admission was enforced, so that something wrote past it.
    BypassedAdmission,
    /// True: there is no such object.
    Missing,
    /// True: what was approved anew has not been applied in time.
    NotApplied,
    /// True: the approval of the content has ended.
    ApprovalEnded,
    /// True: nobody wrote the object, but the definition of its kind was edited, so that it reads otherwise.
    DefinitionChanged,
    /// True: the content was changed under an exception, which lasts.
    Excepted,
    /// True: the content was changed while `spec.suspend` lets writes pass.
    SuspendedBySpec,
    /// True: the content was changed under a pause that has ended; a person decides what becomes of it.
    ExceptionEnded,
    /// Unknown: the target could not be read.
    Unreadable,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::InSync,
        Self::AwaitingApply,
        Self::RepresentationChanged,
        Self::ContentDiffers,
        Self::BypassedAdmission,
        Self::Missing,
        Self::NotApplied,
        Self::ApprovalEnded,
        Self::DefinitionChanged,
        Self::Excepted,
        Self::SuspendedBySpec,
        Self::ExceptionEnded,
        Self::Unreadable,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "InSync",
            Self::AwaitingApply => "AwaitingApply",
            Self::RepresentationChanged => "RepresentationChanged",
            Self::ContentDiffers => "ContentDiffers",
            Self::BypassedAdmission => "BypassedAdmission",
            Self::Missing => "Missing",
            Self::NotApplied => "NotApplied",
            Self::ApprovalEnded => "ApprovalEnded",
            Self::DefinitionChanged => "DefinitionChanged",
            Self::Excepted => "Excepted",
            Self::SuspendedBySpec => "SuspendedBySpec",
            Self::ExceptionEnded => "ExceptionEnded",
            Self::Unreadable => "Unreadable",
        }
    }
}

impl std::str::FromStr for Reason {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or(())
    }
}
