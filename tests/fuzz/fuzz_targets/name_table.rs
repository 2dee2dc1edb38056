//! Whatever two backends call their tools, each tool gets a name that no other has.

#![no_main]

use std::collections::{HashMap, HashSet};

use libfuzzer_sys::fuzz_target;
use waystation::router::names::{Names, Origin, expose};

fuzz_target!(|lists: [(String, HashSet<String>); 2]| {
    let mut names = Names::default();
    let mut owners = HashMap::new();
    for (backend, (prefix, tools)) in lists.iter().enumerate() {
        for name in tools {
            let origin = Origin { backend, name: name.clone() };
            let wanted = [expose(prefix, name), expose(&format!("{prefix}{backend}"), name)];
            let (given, _) = names.give(origin.clone(), wanted);
            if let Some(other) = owners.insert(given.clone(), origin.clone()) {
                panic!("{given:?} stands for {other:?} and {origin:?}");
            }
        }
    }
});
