//! How do complaints look on a terminal?
//!
//! As a compiler shows them: the place, the line, what is wrong in it, what would be right.

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use super::complaint::{Complaint, Place};

pub fn draw(complaints: &[Complaint], colours: bool) -> String {
    let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
    complaints
        .iter()
        .map(|complaint| without_second_head(&renderer.render(&[group(complaint)])) + "\n")
        .collect()
}

/// The renderer takes a place and a line for two files and puts an empty head between them.
fn without_second_head(drawn: &str) -> String {
    let empty_head = |line: &&str| {
        line.contains(":::") && !line.contains(|c: char| c == '|' || c.is_alphabetic() && c != 'm')
    };
    drawn.lines().filter(|line| !empty_head(line)).map(|line| format!("{line}\n")).collect()
}

fn group(complaint: &Complaint) -> Group<'_> {
    let title = match complaint.at.as_str() {
        "" => complaint.what.clone(),
        at => format!("{at}: {}", complaint.what),
    };
    let mut group = Level::ERROR.primary_title(title).elements(place(complaint));
    if !complaint.instead.is_empty() {
        group = group.element(Level::HELP.message(complaint.instead.as_str()));
    }
    group
}

fn place(complaint: &Complaint) -> Vec<Element<'_>> {
    match &complaint.place {
        Place::Open | Place::Nowhere => Vec::new(),
        Place::Variable(name) => vec![Origin::path(format!("environment variable {name}")).into()],
        Place::File(name, None) => vec![Origin::path(name.as_str()).into()],
        Place::File(name, Some(spot)) => {
            // The snippet cannot tell the column: its line may lack a secret before it.
            let origin = Origin::path(name.as_str()).line(spot.line).char_column(spot.column);
            let annotation = AnnotationKind::Primary.span(spot.marked.clone());
            let line = Snippet::source(spot.quoted.as_str()).line_start(spot.line).annotation(annotation);
            vec![origin.into(), line.into()]
        }
    }
}
