//! Has every call of a tool its answer, and every answer its call?
//!
//! Providers refuse conversations where one is missing, and a turn that was broken off may leave such.

use std::collections::HashSet;

use super::{
    super::upstream::{Content, Role},
    Turn,
};

/// Takes calls without an answer out of a turn, and answers without a call.
pub(super) fn complete(turn: &mut Turn) {
    let calls = turn.items.iter().flat_map(|item| &item.message.tool_calls).map(|call| call.id.clone());
    let calls: HashSet<String> = calls.collect();
    let answers = turn.items.iter().filter_map(|item| item.message.tool_call_id.clone());
    let answered: HashSet<String> = answers.filter(|id| calls.contains(id)).collect();
    // A message whose calls were answered in part is as if none had been: providers want all or none.
    let mut paired = HashSet::new();
    for item in &mut turn.items {
        let message = &mut item.message;
        if message.tool_calls.iter().all(|call| answered.contains(&call.id)) {
            paired.extend(message.tool_calls.iter().map(|call| call.id.clone()));
        } else {
            message.tool_calls.clear();
            // What it thought was about the calls, and is checked together with them.
            message.extra.remove("reasoning_details");
        }
    }
    turn.items.retain(|item| {
        let message = &item.message;
        match message.role {
            Role::Tool => message.tool_call_id.as_ref().is_some_and(|id| paired.contains(id)),
            Role::Assistant => !message.tool_calls.is_empty() || says_something(&message.content),
            Role::System | Role::Developer | Role::User => true,
        }
    });
}

fn says_something(content: &Content) -> bool {
    match content {
        Content::None => false,
        Content::Text(text) => !text.is_empty(),
        Content::Parts(parts) => !parts.is_empty(),
    }
}

/// Does it begin as a turn must?
pub(super) fn begins_with_user(turn: &Turn) -> bool {
    turn.items.first().is_some_and(|item| item.message.role == Role::User)
}
