//! Does a condition of a rule hold?
//!
//! Conditions are written in CEL, the language that Envoy and Kubernetes have for this. One is taken
//! apart at its outermost `&&`: what speaks of the caller alone is asked once for each profile, what
//! speaks of the target once for each list, and only the rest when there are arguments. What cannot
//! be evaluated is neither so nor not so, and whoever asks takes that for the worse.
//!
//! Callers write the arguments, so they must not make it slow: what is looked at of them is bounded,
//! and so is the time that loops take.

use std::{
    cell::Cell,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cel::{
    Context, ExecutionError, Program, Value,
    common::{
        ast::{CallExpr, Expr, operators},
        value::{CowVal, Val},
    },
    context::VariableResolver,
    parser::Expression,
};

use super::{
    uses::{Uses, Wanted},
    value,
};

/// The longest condition, in bytes.
const LONGEST: usize = 2048;
/// How deep its parts may be nested, since evaluating goes down into them.
const DEEPEST: usize = 64;
/// For reading one, in bytes; what is not used costs nothing.
const STACK: usize = 256 << 20;
/// How long loops in one condition may take together.
const PATIENCE: Duration = Duration::from_millis(5);
/// What loops ask before each turn; nobody can write that name.
const IN_TIME: &str = "@in_time";

/// What all conditions have in common. Making it costs many times what evaluating one does.
static BASE: LazyLock<Context<'static, 'static>> = LazyLock::new(|| {
    let mut base = Context::default();
    base.add_function(IN_TIME, in_time).expect("the name is nobody else's");
    base
});

thread_local! {
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn in_time(go_on: bool) -> Result<bool, ExecutionError> {
    match UNTIL.get() {
        Some(until) if Instant::now() > until => {
            Err(ExecutionError::function_error("loop", "it takes too long"))
        }
        _ => Ok(go_on),
    }
}

/// Is it so?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    Yes,
    No,
    /// With some arguments it may be.
    Open,
    /// It cannot be said.
    Unknown,
}

impl Truth {
    /// Are both so?
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Open, _) | (_, Self::Open) => Self::Open,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

/// A condition, ready to be asked.
#[derive(Debug)]
pub struct Condition {
    /// As it was written.
    pub text: String,
    parts: Vec<Part>,
    /// That it cannot be evaluated was said once.
    told: AtomicBool,
}

/// One of the conditions that must all hold.
#[derive(Debug)]
struct Part {
    expression: Expression,
    uses: Uses,
}

/// What a condition may speak of.
#[derive(Debug)]
pub struct Scene<'a> {
    caller: Option<&'a dyn Val>,
    target: Option<Box<dyn Val>>,
    arguments: Option<Box<dyn Val>>,
}

impl<'a> Scene<'a> {
    pub fn new(caller: Option<&'a dyn Val>, target: Option<Box<dyn Val>>) -> Self {
        Self { caller, target, arguments: None }
    }
}

impl VariableResolver for Scene<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let value = match name {
            "caller" => self.caller,
            "target" => self.target.as_deref(),
            "arguments" => self.arguments.as_deref(),
            _ => None,
        };
        value.map(CowVal::Borrowed)
    }
}

impl Condition {
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("is over {LONGEST} characters"));
        }
        // The parser goes down into itself for each bracket; text of this length cannot use up so much.
        let thread = std::thread::Builder::new().stack_size(STACK);
        let owned = text.to_owned();
        let read =
            thread.spawn(move || Self::read(&owned)).map_err(|why| format!("cannot be read: {why}"))?;
        read.join().unwrap_or_else(|_| Err("is no condition that can be read".to_owned()))
    }

    fn read(text: &str) -> Result<Self, String> {
        let program = Program::compile(text).map_err(|why| {
            let why = why.to_string();
            let first = why.lines().next().unwrap_or_default();
            format!("is no condition: {}", first.trim_start_matches("ERROR: <input>:"))
        })?;
        if !super::uses::is_shallow(program.expression(), DEEPEST) {
            return Err(format!("is nested more than {DEEPEST} deep"));
        }
        let mut parts = Vec::new();
        split(program.expression().clone(), &mut parts);
        let parts = parts.into_iter().map(|mut expression| {
            let uses = Uses::of(&expression)?;
            bound(&mut expression);
            Ok(Part { expression, uses })
        });
        let parts = parts.collect::<Result<_, String>>()?;
        Ok(Self { text: text.to_owned(), parts, told: AtomicBool::new(false) })
    }

    /// What it wants to know of callers for each thing anew.
    pub fn wants_of_callers(&self) -> Wanted {
        let parts = self.parts.iter().filter(|part| !part.uses.only_the_caller());
        parts.fold(Wanted::default(), |wanted, part| wanted.and(part.uses.caller.clone()))
    }

    /// Does it speak of the target?
    pub fn asks_for_target(&self) -> bool {
        self.parts.iter().any(|part| part.uses.target)
    }

    pub fn asks_for_arguments(&self) -> bool {
        self.parts.iter().any(|part| part.uses.arguments != Wanted::default())
    }

    /// Does what it says of the caller alone hold?
    pub fn of_caller(&self, caller: &dyn Val) -> Truth {
        let scene = Scene::new(Some(caller), None);
        let parts = self.parts.iter().filter(|part| part.uses.only_the_caller());
        parts.fold(Truth::Yes, |truth, part| truth.and(self.ask(part, &scene)))
    }

    /// Does the rest hold? Without arguments, with any?
    pub fn of_thing(&self, scene: &mut Scene<'_>, arguments: Option<&[u8]>) -> Truth {
        let mut truth = Truth::Yes;
        for part in self.parts.iter().filter(|part| !part.uses.only_the_caller()) {
            let now = match (part.uses.arguments == Wanted::default(), arguments) {
                (true, _) => self.ask(part, scene),
                (false, None) => Truth::Open,
                (false, Some(arguments)) => match value::arguments(arguments, &part.uses) {
                    Ok(arguments) => {
                        scene.arguments = Some(arguments);
                        self.ask(part, scene)
                    }
                    Err(why) => self.unknown(&why),
                },
            };
            truth = truth.and(now);
            if truth == Truth::No {
                break;
            }
        }
        truth
    }

    fn ask(&self, part: &Part, scene: &Scene<'_>) -> Truth {
        let base: &Context<'_, '_> = &BASE;
        let mut context = base.new_inner_scope();
        context.set_variable_resolver(scene);
        UNTIL.set(Some(Instant::now() + PATIENCE));
        let came = Value::resolve(&part.expression, &context);
        UNTIL.set(None);
        match came {
            Ok(Value::Bool(true)) => Truth::Yes,
            Ok(Value::Bool(false)) => Truth::No,
            Ok(_) => self.unknown("it gives no true or false"),
            // What it was evaluated with may be nobody's business, and stands in many of these.
            Err(ExecutionError::NoSuchKey(name)) => self.unknown(&format!("there is no {name:?}")),
            Err(ExecutionError::UndeclaredReference(name)) => {
                self.unknown(&format!("nothing is called {name:?}"))
            }
            Err(ExecutionError::FunctionError { message, .. }) => self.unknown(&message),
            Err(_) => self.unknown("its values are not of the kinds that it takes"),
        }
    }

    fn unknown(&self, why: &str) -> Truth {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                condition = self.text,
                why,
                "a condition could not be evaluated, so it allows nothing and denies; this is said once"
            );
        }
        Truth::Unknown
    }
}

/// The conditions that must all hold for this one to hold.
fn split(mut expression: Expression, parts: &mut Vec<Expression>) {
    match &mut expression.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_AND => {
            std::mem::take(&mut call.args).into_iter().for_each(|part| split(part, parts));
        }
        _ => parts.push(expression),
    }
}

/// Has every loop ask before each turn whether there is time left.
fn bound(expression: &mut Expression) {
    super::uses::inner_mut(expression, &mut bound);
    if let Expr::Comprehension(each) = &mut expression.expr {
        let condition = std::mem::take(&mut each.loop_cond);
        let (func_name, target, args) = (IN_TIME.to_owned(), None, vec![condition]);
        each.loop_cond = Expression { id: 0, expr: Expr::Call(CallExpr { func_name, target, args }) };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(text: &str, arguments: &str) -> Truth {
        let caller = json!({ "issuer": "i", "subject": "ada", "groups": ["oncall"], "scopes": [], "claims": { "level": 3 }, "anonymous": false });
        let caller = value::of(&caller).unwrap();
        let target = value::of(&json!({ "name": "read", "backend": "files", "read_only": true })).ok();
        let condition = Condition::new(text).unwrap();
        let of_caller = condition.of_caller(&*caller);
        let mut scene = Scene::new(Some(&*caller), target);
        of_caller.and(condition.of_thing(&mut scene, Some(arguments.as_bytes())))
    }

    #[test]
    fn conditions_hold_or_do_not() {
        for (text, arguments, expected) in [
            ("caller.subject == 'ada'", "{}", Truth::Yes),
            (
                "caller.groups.exists(g, g == 'oncall') && arguments.repo.startsWith('acme/')",
                r#"{"repo":"acme/x"}"#,
                Truth::Yes,
            ),
            (
                "caller.groups.exists(g, g == 'oncall') && arguments.repo.startsWith('acme/')",
                r#"{"repo":"evil/x"}"#,
                Truth::No,
            ),
            ("'oncall' in caller.groups && target.read_only", "{}", Truth::Yes),
            ("caller.claims.level > 2 && arguments.n < 10", r#"{"n":9}"#, Truth::Yes),
            ("arguments.n < 10", r#"{"n":18446744073709551615}"#, Truth::No),
            ("arguments.n < 10", r#"{"n":9.5}"#, Truth::Yes),
            ("has(arguments.force) && arguments.force", "{}", Truth::No),
            ("!has(arguments.force) || !arguments.force", "{}", Truth::Yes),
            (
                "arguments.paths.all(p, p.matches('^/srv/[a-z]+$'))",
                r#"{"paths":["/srv/a","/srv/b"]}"#,
                Truth::Yes,
            ),
            (
                "arguments.paths.all(p, p.matches('^/srv/[a-z]+$'))",
                r#"{"paths":["/srv/a","/etc"]}"#,
                Truth::No,
            ),
            ("arguments == {}", "{}", Truth::Yes),
            ("arguments['a-b'] == null", r#"{"a-b":null}"#, Truth::Yes),
        ] {
            assert_eq!(ask(text, arguments), expected, "{text} {arguments}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_neither() {
        for (text, arguments) in [
            ("arguments.repo.startsWith('acme/')", "{}"),
            ("arguments.repo.startsWith('acme/')", r#"{"repo":7}"#),
            ("arguments.repo", r#"{"repo":"x"}"#),
            ("arguments.n / 0 == 1", r#"{"n":1}"#),
            ("caller.claims.missing == 'x'", "{}"),
            ("arguments.n > 1", r#"{"n":1e999}"#),
            ("arguments.n > 1", "[1]"),
            // Some servers take the one for the other.
            ("arguments.repo.startsWith('acme/')", r#"{"repo":"acme/x","Repo":"evil/x"}"#),
            ("!has(arguments.force)", r#"{"FORCE":true}"#),
            ("!has(arguments.keep)", "{\"\u{212a}eep\":true}"),
            ("!has(arguments.options.force)", r#"{"options":{"Force":true}}"#),
        ] {
            assert_eq!(ask(text, arguments), Truth::Unknown, "{text} {arguments}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (text, words) in [
            ("caller.subject ==", "is no condition"),
            ("callers.subject == 'a'", "\"callers\""),
            ("caller.subject.begins('a')", "\"begins\""),
            ("size(caller.group) == 0", "\"group\""),
            ("target.readonly", "\"readonly\""),
            (&format!("caller.subject == '{}'", "x".repeat(LONGEST)), "over 2048"),
            (&format!("{}true{}", "(".repeat(1000), ")".repeat(1000)), "is no"),
            (&"[".repeat(2040), "is no"),
            (&format!("1{} == 1", "+1".repeat(900)), "deep"),
        ] {
            let why = Condition::new(text).expect_err(text);
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    #[test]
    fn arguments_are_asked_for_only_once_there_are_any() {
        let caller = value::of(&json!({ "groups": [] })).unwrap();
        for (text, expected) in [
            ("arguments.x == 1", Truth::Open),
            ("arguments.x == 1 && target.read_only", Truth::No),
            ("arguments.x == 1 && target.missing", Truth::Unknown),
            ("target.read_only || arguments.x == 1", Truth::Open),
            ("!target.read_only", Truth::Yes),
        ] {
            let condition = Condition::new(&text.replace("missing", "name")).unwrap();
            let target = value::of(&json!({ "read_only": false, "name": 1 })).ok();
            let mut scene = Scene::new(Some(&*caller), target);
            assert_eq!(condition.of_thing(&mut scene, None), expected, "{text}");
        }
    }

    /// Whatever a caller sends, and however the condition loops over it.
    #[test]
    fn hostile_arguments_do_not_keep_us() {
        let numbers = format!("[{}]", vec!["1"; 8_000].join(","));
        let lists = json!({ "a": serde_json::from_str::<serde_json::Value>(&numbers).unwrap() }).to_string();
        let text = json!({ "a": "a".repeat(16_000) }).to_string();
        let long = json!({ "a": "a".repeat(4 << 20) }).to_string();
        let other = json!({ "b": "a".repeat(4 << 20), "a": "b" }).to_string();
        let mut slowest = Duration::ZERO;
        for (condition, arguments) in [
            ("arguments.a.all(x, arguments.a.exists(y, y == 2 && x == y) || true)", &lists),
            ("[arguments.a].all(l, l.all(x, l.all(y, l.all(z, x == y && y == z))))", &lists),
            ("arguments.a.map(x, arguments.a.map(y, x + y)).size() > 3", &lists),
            ("arguments.a.filter(x, x in arguments.a).size() > 3", &lists),
            ("arguments.a.matches('(a*)*(a|b)*c$')", &text),
            ("arguments.a.contains('b')", &long),
            ("arguments.a == 'b'", &other),
        ] {
            let begun = Instant::now();
            let truth = ask(condition, arguments);
            println!("{condition}: {truth:?} after {:?}", begun.elapsed());
            slowest = slowest.max(begun.elapsed());
            assert_ne!(truth, Truth::Open, "{condition}");
        }
        // Some 10 ms where nothing else runs; without the bound it would be hours.
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    }
}
