//! What is wrong with a configuration, where, and what would be right?
//!
//! A complaint never holds a secret: what it says passes [`secret::mask`], and the line it
//! quotes was masked when it was quoted (`quote`).

use std::{fmt, ops::Range};

use super::{Source, document, render, secret};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The key, as in `backends.github.url`; empty where it is about the file.
    pub at: String,
    pub what: String,
    /// What would be right.
    pub instead: String,
    pub place: Place,
}

/// Where the key was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nobody has said yet; [`Complaints::located`] does.
    Open,
    /// Nowhere: a default, or a value that is missing.
    Nowhere,
    /// In this environment variable.
    Variable(String),
    File(String, Option<Spot>),
}

impl Place {
    /// Which line it is, if it is one.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::File(_, Some(spot)) => Some(spot.line),
            Self::Open | Self::Nowhere | Self::Variable(_) | Self::File(_, None) => None,
        }
    }
}

/// A place in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// From 1.
    pub line: usize,
    /// In letters, from 1.
    pub column: usize,
    /// The line, without its secrets.
    pub quoted: String,
    /// The bytes of `quoted` that the complaint is about.
    pub marked: Range<usize>,
}

impl Complaint {
    /// A complaint about a key, whose place is looked up later.
    pub fn new(at: impl fmt::Display, what: impl fmt::Display, instead: impl fmt::Display) -> Self {
        let clean = |text: String| secret::mask(&text).into_owned();
        Self {
            at: at.to_string(),
            what: clean(what.to_string()),
            instead: clean(instead.to_string()),
            place: Place::Open,
        }
    }

    #[must_use]
    pub fn placed(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The file's name as it was told, if the complaint is about a file.
    pub fn file(&self) -> Option<&str> {
        match &self.place {
            Place::File(name, _) => Some(name),
            Place::Open | Place::Nowhere | Place::Variable(_) => None,
        }
    }

    pub fn line(&self) -> Option<usize> {
        self.spot().map(|spot| spot.line)
    }

    pub fn column(&self) -> Option<usize> {
        self.spot().map(|spot| spot.column)
    }

    pub(super) fn spot(&self) -> Option<&Spot> {
        match &self.place {
            Place::File(_, spot) => spot.as_ref(),
            Place::Open | Place::Nowhere | Place::Variable(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open | Self::Nowhere => Ok(()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File(name, None) => f.write_str(name),
            Self::File(name, Some(spot)) => write!(f, "{name}:{}:{}", spot.line, spot.column),
        }
    }
}

/// On one line, for logs and for other programs.
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.to_string();
        let parts = [place.as_str(), self.at.as_str()].into_iter().filter(|part| !part.is_empty());
        for part in parts {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.what)?;
        if self.instead.is_empty() { Ok(()) } else { write!(f, "; {}", self.instead) }
    }
}

/// All that is wrong, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    pub fn push(&mut self, complaint: Complaint) {
        self.0.push(complaint);
    }

    /// The part that was built, or nothing, with a note of why and `at` which key.
    pub fn hear<T>(&mut self, at: impl fmt::Display, built: Result<T, String>) -> Option<T> {
        match built {
            Ok(part) => Some(part),
            Err(why) => {
                let (what, instead) = why.split_once("; ").unwrap_or((&why, ""));
                self.push(Complaint::new(at, what, instead));
                None
            }
        }
    }

    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Complaint> {
        self.0.iter()
    }

    /// Says of each complaint that does not know it yet where its key was set.
    #[must_use]
    pub fn located(mut self, source: &Source) -> Self {
        for complaint in &mut self.0 {
            if complaint.place == Place::Open {
                complaint.place = source.place_of(&complaint.at);
            }
            // Somebody may have written a secret where a key belongs.
            complaint.at = document::shown(&complaint.at);
        }
        self.0.sort_by_key(|complaint| (complaint.line().is_none(), complaint.line(), complaint.column()));
        self
    }

    /// `Ok` if there is nothing to complain about.
    pub fn or<T>(self, fine: T) -> Result<T, Self> {
        if self.is_empty() { Ok(fine) } else { Err(self) }
    }

    /// As a terminal shows them: the line, what is wrong in it, what would be right.
    pub fn drawn(&self, colours: bool) -> String {
        render::draw(&self.0, colours)
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for complaint in &self.0 {
            writeln!(f, "error: {complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}
