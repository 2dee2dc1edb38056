//! Which icons of a list's entry may a client be shown?
//!
//! Those from a safe address, and those that are there as they are (2025-11-25, "Icons"): any
//! other scheme may do on the client's machine what the server wants.

use super::{
    json::{self, Span, member_of, within},
    message::object_with,
};

/// An entry without icons of another kind. Nothing, if it has none of these.
pub fn safe_icons(entry: &[u8]) -> Option<Vec<u8>> {
    // Most entries have none, and looking for the word is cheaper than reading.
    memchr::memmem::find(entry, b"\"icons\"")?;
    let icons = member_of(entry, Span { start: 0, end: entry.len() }, "icons")?;
    let all = within(entry, icons);
    let is_safe = |icon: &&Span| {
        let source = member_of(entry, **icon, "src").and_then(|source| json::string(source.of(entry)));
        let scheme = source.as_deref().and_then(|source| source.split_once(':')).map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| ["https", "data"].iter().any(|safe| safe.eq_ignore_ascii_case(scheme)))
    };
    let safe: Vec<_> = all.iter().filter(is_safe).map(|icon| icon.of(entry)).collect();
    if safe.len() == all.len() && !all.is_empty() {
        return None;
    }
    let list = [b"[", &safe.join(&b',')[..], b"]"].concat();
    let put: &[(&str, &[u8])] = if safe.is_empty() { &[] } else { &[("icons", &list)] };
    Some(object_with(entry, |key| key == "icons", put))
}
