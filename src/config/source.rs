//! Where did a configuration come from?

use super::{
    complaint::Place,
    document::{Document, Mark, undotted},
    environment::Overrides,
};

/// What a configuration was read from, to say where each key was set.
#[derive(Debug, Clone)]
pub struct Source {
    pub(super) document: Document,
    pub(super) overrides: Overrides,
    /// Backends from other programs' files.
    pub(super) taken_over: Vec<(String, Place)>,
}

impl Source {
    /// The name by which complaints call the file.
    pub fn name(&self) -> &str {
        self.document.name()
    }

    /// Where the key is set, written as in complaints.
    pub fn place_of(&self, at: &str) -> Place {
        self.place(&undotted(at), Mark::Value)
    }

    pub(super) fn place(&self, path: &[String], mark: Mark) -> Place {
        let taken_over = match path {
            [table, name, ..] if table == "backends" => {
                self.taken_over.iter().find(|(known, _)| known == name)
            }
            _ => None,
        };
        if let Some((_, place)) = taken_over {
            return place.clone();
        }
        if path.is_empty() {
            return Place::File(self.name().to_owned(), None);
        }
        let variable = self.overrides.variable(path);
        match variable {
            Some(name) if self.overrides.sets(path) || !self.document.has(path) => {
                Place::Variable(name.to_owned())
            }
            Some(_) | None => self.document.place(path, mark),
        }
    }
}
