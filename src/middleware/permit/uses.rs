//! What does a condition speak of?
//!
//! So that it is asked no earlier and no more often than that changes, and that of the arguments no
//! more is read than it looks at.

use std::collections::{BTreeMap, BTreeSet};

use cel::{
    common::ast::{Expr, LiteralValue, operators},
    parser::Expression,
};

/// Which members of something are looked at. Members of claims are written `claims.name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Only(BTreeSet<String>),
    Everything,
}

impl Default for Wanted {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Wanted {
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(one), Self::Only(two)) => Self::Only(&one | &two),
            _ => Self::Everything,
        }
    }

    fn add(&mut self, member: String) {
        if let Self::Only(members) = self {
            members.insert(member);
        }
    }
}

/// What an expression speaks of.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    pub caller: Wanted,
    pub target: bool,
    pub arguments: Wanted,
    /// All names and texts in it, by what readers who do not tell cases apart take them for.
    words: BTreeMap<String, BTreeSet<String>>,
}

const VARIABLES: [&str; 3] = ["caller", "target", "arguments"];
const OF_CALLERS: [&str; 6] = ["issuer", "subject", "groups", "scopes", "claims", "anonymous"];
pub const OF_TARGETS: [&str; 8] =
    ["backend", "name", "shown", "kind", "read_only", "destructive", "idempotent", "open_world"];
const TYPES: [&str; 10] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];
const FUNCTIONS: [&str; 13] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "type",
    "dyn",
];

impl Uses {
    pub fn of(expression: &Expression) -> Result<Self, String> {
        let mut uses = Self::default();
        uses.walk(expression, &mut Vec::new())?;
        Ok(uses)
    }

    pub fn only_the_caller(&self) -> bool {
        !self.target && self.arguments == Wanted::default()
    }

    /// Is this a name that it does not mention, but that others take for one that it does?
    pub fn is_twin(&self, name: &str) -> bool {
        self.words.get(&folded(name)).is_some_and(|words| !words.contains(name))
    }

    fn walk<'a>(&mut self, expression: &'a Expression, bound: &mut Vec<&'a str>) -> Result<(), String> {
        if let Some((root, path)) = path(expression)
            && !bound.contains(&root)
        {
            path.iter().flatten().for_each(|word| self.word(word));
            self.variable(root, &path)?;
            return self.indices(expression, bound);
        }
        match &expression.expr {
            Expr::Literal(LiteralValue::String(text)) => self.word(text.inner()),
            Expr::Select(select) => self.word(&select.field),
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if name.starts_with(|c: char| c.is_ascii_alphabetic()) && !FUNCTIONS.contains(&name) {
                    return Err(format!(
                        "calls {name:?}, which does not exist; there are {}",
                        FUNCTIONS.join(", ")
                    ));
                }
            }
            _ => {}
        }
        let names = bound.len();
        if let Expr::Comprehension(each) = &expression.expr {
            if VARIABLES.contains(&each.iter_var.as_str()) {
                return Err(format!(
                    "has a loop over {:?}, which means something else; take another name",
                    each.iter_var
                ));
            }
            bound.push(&each.iter_var);
            bound.extend(each.iter_var2.as_deref());
            bound.push(&each.accu_var);
        }
        let mut fault = None;
        inner(expression, &mut |one| {
            if fault.is_none() {
                fault = self.walk(one, bound).err();
            }
        });
        bound.truncate(names);
        fault.map_or(Ok(()), Err)
    }

    /// What stands in brackets on a path that is no text.
    fn indices<'a>(&mut self, expression: &'a Expression, bound: &mut Vec<&'a str>) -> Result<(), String> {
        match &expression.expr {
            Expr::Select(select) => self.indices(&select.operand, bound),
            Expr::Call(call) if call.func_name == operators::INDEX => {
                self.indices(&call.args[0], bound)?;
                self.walk(&call.args[1], bound)
            }
            _ => Ok(()),
        }
    }

    fn variable(&mut self, root: &str, path: &[Option<String>]) -> Result<(), String> {
        let known = |names: &[&str]| match path.first() {
            Some(Some(name)) if !names.contains(&name.as_str()) => Err(format!(
                "asks for {root}.{name}, but {root} has no {name:?}; it has {}",
                names.join(", ")
            )),
            _ => Ok(()),
        };
        match (root, path) {
            ("caller", [Some(claims), Some(name), ..]) if claims == "claims" => {
                self.caller.add(format!("claims.{name}"));
            }
            ("caller", [Some(name), ..]) => {
                known(&OF_CALLERS)?;
                self.caller.add(name.clone());
            }
            ("caller", _) => self.caller = Wanted::Everything,
            ("target", _) => {
                known(&OF_TARGETS)?;
                self.target = true;
            }
            ("arguments", [Some(name), ..]) => self.arguments.add(name.clone()),
            ("arguments", _) => self.arguments = Wanted::Everything,
            (name, _) if TYPES.contains(&name) => {}
            (name, _) => {
                return Err(format!(
                    "speaks of {name:?}, which does not exist; there are `caller`, `target` and `arguments`"
                ));
            }
        }
        Ok(())
    }

    fn word(&mut self, word: &str) {
        self.words.entry(folded(word)).or_default().insert(word.to_owned());
    }
}

/// What Go's decoder, and others like it, take a name for: it takes two letters outside of ASCII for
/// theirs inside, the long s and the sign for kelvin.
fn folded(name: &str) -> String {
    name.replace('\u{17f}', "s").replace('\u{212a}', "k").to_ascii_lowercase()
}

/// `arguments.a["b"][x].c` is `arguments` and `a`, `b`, any, `c`.
fn path(expression: &Expression) -> Option<(&str, Vec<Option<String>>)> {
    match &expression.expr {
        Expr::Ident(name) => Some((name.strip_prefix('.').unwrap_or(name), Vec::new())),
        Expr::Select(select) => {
            let (root, mut path) = path(&select.operand)?;
            path.push(Some(select.field.clone()));
            Some((root, path))
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [of, index] = call.args.as_slice() else { return None };
            let (root, mut path) = path(of)?;
            path.push(match &index.expr {
                Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
                _ => None,
            });
            Some((root, path))
        }
        _ => None,
    }
}

/// The expressions that one consists of.
fn inner<'a>(expression: &'a Expression, each: &mut dyn FnMut(&'a Expression)) {
    match &expression.expr {
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).for_each(each),
        Expr::Comprehension(loops) => {
            let parts =
                [&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result];
            parts.into_iter().for_each(each);
        }
        Expr::List(list) => list.elements.iter().for_each(each),
        Expr::Map(map) => map.entries.iter().for_each(|entry| entry_of(&entry.expr, each)),
        Expr::Select(select) => each(&select.operand),
        Expr::Struct(of) => of.entries.iter().for_each(|entry| entry_of(&entry.expr, each)),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

/// Is nothing in it nested deeper than this?
pub fn is_shallow(expression: &Expression, deepest: usize) -> bool {
    let mut shallow = deepest > 0;
    if shallow {
        inner(expression, &mut |one| shallow = shallow && is_shallow(one, deepest - 1));
    }
    shallow
}

fn entry_of<'a>(entry: &'a cel::common::ast::EntryExpr, each: &mut dyn FnMut(&'a Expression)) {
    match entry {
        cel::common::ast::EntryExpr::StructField(field) => each(&field.value),
        cel::common::ast::EntryExpr::MapEntry(entry) => [&entry.key, &entry.value].into_iter().for_each(each),
    }
}

/// The same, to be changed.
pub fn inner_mut(expression: &mut Expression, each: &mut dyn FnMut(&mut Expression)) {
    use cel::common::ast::EntryExpr;
    let entry_of = |entry: &mut EntryExpr, each: &mut dyn FnMut(&mut Expression)| match entry {
        EntryExpr::StructField(field) => each(&mut field.value),
        EntryExpr::MapEntry(entry) => [&mut entry.key, &mut entry.value].into_iter().for_each(each),
    };
    match &mut expression.expr {
        Expr::Call(call) => {
            call.target.iter_mut().map(|target| &mut **target).chain(&mut call.args).for_each(each);
        }
        Expr::Comprehension(loops) => {
            let cel::common::ast::ComprehensionExpr {
                iter_range,
                accu_init,
                loop_cond,
                loop_step,
                result,
                ..
            } = &mut **loops;
            [iter_range, accu_init, loop_cond, loop_step, result].into_iter().for_each(each);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(each),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| entry_of(&mut entry.expr, each)),
        Expr::Select(select) => each(&mut select.operand),
        Expr::Struct(of) => of.entries.iter_mut().for_each(|entry| entry_of(&mut entry.expr, each)),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}
