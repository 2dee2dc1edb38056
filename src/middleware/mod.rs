//! Whether a call may pass, and what is done on the way. Stages know nothing of one another, but
//! that a call whose time is over may become a task.

pub mod audit; //    who did what
pub mod cache; //    which replies may be used again
pub mod deadline; // how long
mod heartbeat; //    what a client hears meanwhile
pub mod identify; // who asks
pub mod limit; //    how often
pub mod permit; //   what they may
pub mod tasks; //    what goes on without its client
mod timers; //       one timer for many calls

/// Does a name fit a pattern, in which `*` stands for any letters?
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}
