//! Which limits speak of a call, and are they all kept?
//!
//! First each is asked, with all their cells locked, and only if all say yes is anything taken. So a
//! call that one of them refuses costs nothing of the others, whatever comes at the same time. What is
//! told to the caller is the longest of the waits: then the call fits.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr, sync::Arc};

use smallvec::SmallVec;

use super::{
    Settings,
    cells::{Cell, Cells, Key},
    rate::{Per, Rate, Rates},
};
use crate::{
    call::{Aim, Call, Caller},
    error::{Policy, Reached},
    middleware::fits,
    weaken,
    wire::{json, mcp::Method},
};

/// What holds for whoever has a token, where nothing else is said.
pub const PER_CALLER: Rate = Rate::new(600, 60, Per::Caller);
/// What holds for each stranger.
pub const ANONYMOUS: Rate = Rate::new(60, 60, Per::Ip);
/// What holds for requests by which a client finds its way. A page of each list takes six.
pub const DISCOVERY: Rate = Rate::new(1200, 60, Per::Caller);

/// All limits, in the order in which their cells are locked.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Arc<Rule>>,
    costs: BTreeMap<String, u32>,
    /// Does any look at the target of a call?
    by_target: bool,
}

/// One limit.
#[derive(Debug)]
pub struct Rule {
    of: Of,
    rate: Rate,
    cells: Cells,
}

/// Of which calls a limit speaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    /// Those by which a client finds its way. `Known`: nothing was said, so it is for callers who
    /// come over a network.
    Discovery(Written),
    Everything,
    /// Those of callers who are no strangers, and of no group with a limit for each of its members.
    Caller(Written, Vec<String>),
    Strangers,
    Group(String),
    Backend(String),
    Tool(String),
}

/// Was it written, or is it what holds where nothing is said?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Written {
    Yes,
    No,
}

/// What is looked at to find the limits of a call.
struct Subject<'a> {
    caller: &'a Caller,
    aim: Option<&'a Aim>,
    /// The tool that is called, by the name that the caller used, and by its backend and own name.
    tool: Option<(Cow<'a, str>, String)>,
    discovers: bool,
}

/// What a call has taken.
#[derive(Debug, Default)]
pub struct Taken(SmallVec<[(Arc<Rule>, Arc<Cell>); 4]>, u32);

impl Taken {
    /// For a call that was refused after all.
    pub fn give_back(self) {
        let Self(taken, cost) = self;
        for (rule, cell) in taken {
            rule.cells.give_back(&cell, cost);
        }
    }
}

impl Rules {
    /// Those of earlier that stay the same keep what was used of them.
    pub fn new(settings: &Settings, earlier: Option<&Self>) -> Self {
        let mut wanted: Vec<(Of, Rate)> = Vec::new();
        let mut add = |of: Of, rates: &Rates| wanted.extend(rates.0.iter().map(|rate| (of.clone(), *rate)));
        let each = |(_, rates): &(&String, &Rates)| rates.0.iter().any(|rate| rate.per == Per::Caller);
        let instead = settings.groups.iter().filter(each).map(|(name, _)| name.clone()).collect();
        let own = |rates: &Option<Rates>, usual: Rate| match rates {
            // What a key says by its name need not be said again.
            Some(Rates(rates)) => {
                let apart = rates.iter().map(|rate| rate.counted(usual.per));
                (Written::Yes, Rates(apart.collect()))
            }
            None => (Written::No, Rates(vec![usual])),
        };
        let (written, rates) = own(&settings.discovery, DISCOVERY);
        add(Of::Discovery(written), &rates);
        let (written, rates) = own(&settings.per_caller, PER_CALLER);
        add(Of::Caller(written, instead), &rates);
        add(Of::Strangers, settings.anonymous.as_ref().unwrap_or(&Rates(vec![ANONYMOUS])));
        settings.all.iter().for_each(|rates| add(Of::Everything, rates));
        settings.groups.iter().for_each(|(name, rates)| add(Of::Group(name.clone()), rates));
        settings.backends.iter().for_each(|(name, rates)| add(Of::Backend(name.clone()), rates));
        settings.tools.iter().for_each(|(pattern, rates)| add(Of::Tool(pattern.clone()), rates));
        // One order for all time, or two calls could wait for each other's locks.
        wanted.sort();
        wanted.dedup();
        let earlier = earlier.map(|earlier| earlier.rules.as_slice()).unwrap_or_default();
        let kept = |of: &Of, rate: &Rate| {
            let same = earlier.iter().find(|rule| rule.of == *of && rule.rate == *rate);
            same.map(Arc::clone)
        };
        let made = |(of, rate): (Of, Rate)| {
            kept(&of, &rate).unwrap_or_else(|| Arc::new(Rule { of, rate, cells: Cells::new(rate) }))
        };
        let by_target = !(settings.tools.is_empty() && settings.costs.is_empty());
        Self { rules: wanted.into_iter().map(made).collect(), costs: settings.costs.clone(), by_target }
    }

    /// Takes what a call costs of all limits that speak of it, or nothing and says why.
    pub fn admit(&self, call: &Call, discovers: bool) -> Result<Taken, Box<Reached>> {
        let is_tool = self.by_target && call.method == Method::ToolsCall;
        let name = if is_tool { call.message.in_params("name").and_then(json::string) } else { None };
        let tool = name.map(|name| (name, full_name(call.aim.as_deref())));
        let subject = Subject { caller: &call.caller, aim: call.aim.as_deref(), tool, discovers };
        self.take(&subject)
    }

    fn take(&self, subject: &Subject<'_>) -> Result<Taken, Box<Reached>> {
        let mut taken = Taken(SmallVec::new(), self.cost(subject));
        for rule in &self.rules {
            if let Some(key) = rule.speaks_of(subject) {
                taken.0.push((Arc::clone(rule), rule.cells.of(&key)));
            }
        }
        let locks: SmallVec<[_; 4]> = taken.0.iter().map(|(_, cell)| cell.lock()).collect();
        let mut refusal: Option<Box<Reached>> = None;
        for (rule, cell) in &taken.0 {
            match rule.cells.look(cell, taken.1) {
                Ok(_) if weaken::is("limit-takes-one-by-one") => cell.take(),
                Err(_) if weaken::is("limit-rates") => {}
                Ok(_) if weaken::is("limit-refuses") => {
                    refusal = Some(Box::new(rule.refusal(std::time::Duration::from_secs(1))));
                }
                Ok(_) => {}
                Err(wait) if refusal.as_ref().is_none_or(|longer| longer.wait < wait) => {
                    refusal = Some(Box::new(rule.refusal(wait)));
                }
                Err(_) => {}
            }
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        taken.0.iter().for_each(|(_, cell)| cell.take());
        drop(locks);
        Ok(taken)
    }

    /// What a call counts as. Of the patterns that fit, the longest says it.
    fn cost(&self, subject: &Subject<'_>) -> u32 {
        let fitting = self.costs.iter().filter(|(pattern, _)| subject.fits(pattern));
        fitting.max_by_key(|(pattern, _)| pattern.len()).map_or(1, |(_, cost)| *cost)
    }

    /// What is left of each limit that speaks of such calls.
    pub fn describe(&self, caller: &Caller, aim: Option<&Aim>) -> Vec<String> {
        let tool = aim.map(|aim| (Cow::Borrowed(&*aim.own), full_name(Some(aim))));
        let subject = Subject { caller, aim, tool, discovers: false };
        let left = |rule: &Arc<Rule>| {
            let key = rule.speaks_of(&subject)?;
            Some(format!("{} {}: {} left", rule.name(), rule.rate, rule.cells.left(&key)))
        };
        let mut lines: Vec<_> = self.rules.iter().filter_map(left).collect();
        let cost = self.cost(&subject);
        lines.extend((cost > 1).then(|| format!("one call counts as {cost}")));
        lines
    }

    pub fn sweep(&self) {
        self.rules.iter().for_each(|rule| rule.cells.sweep());
    }
}

impl Rule {
    /// For whom the limit counts the call, if it speaks of it.
    fn speaks_of(&self, subject: &Subject<'_>) -> Option<Key> {
        let Subject { caller, aim, discovers, .. } = subject;
        let stranger = matches!(caller, Caller::Stranger(_));
        let member = |group: &String| matches!(caller, Caller::Known(who) if who.groups.contains(group));
        let here = matches!(caller, Caller::Local) && !weaken::is("limit-local");
        let far = |written: Written| written == Written::Yes || !here;
        let speaks = match &self.of {
            Of::Discovery(written) => return (*discovers && far(*written)).then(|| Some(whose(caller))),
            _ if *discovers => false,
            Of::Everything => true,
            Of::Caller(written, instead) => !stranger && far(*written) && !instead.iter().any(member),
            Of::Strangers => stranger,
            Of::Group(name) => member(name),
            Of::Backend(name) => aim.is_some_and(|aim| *aim.backend == **name),
            Of::Tool(pattern) => subject.fits(pattern),
        };
        match self.rate.per {
            _ if !speaks => None,
            Per::All => Some(None),
            Per::Caller => Some(Some(whose(caller))),
            Per::Ip => stranger.then(|| Some(whose(caller))),
        }
    }

    /// The key under which it was written.
    fn name(&self) -> Cow<'static, str> {
        match &self.of {
            Of::Discovery(_) => "limit.discovery".into(),
            Of::Everything => "limit.all".into(),
            Of::Caller(..) => "limit.per_caller".into(),
            Of::Strangers => "limit.anonymous".into(),
            Of::Group(name) => format!("limit.groups.{name}").into(),
            Of::Backend(name) => format!("limit.backends.{name}").into(),
            Of::Tool(pattern) => format!("limit.tools.{pattern}").into(),
        }
    }

    fn refusal(&self, wait: std::time::Duration) -> Reached {
        let wait = if weaken::is("limit-short-wait") { wait / 3 } else { wait };
        let policy = Policy { count: self.rate.count.into(), window: self.rate.window };
        Reached { limit: self.name().into_owned(), says: self.rate.to_string(), wait, policy: Some(policy) }
    }
}

impl Subject<'_> {
    fn fits(&self, pattern: &str) -> bool {
        self.tool.as_ref().is_some_and(|(shown, full)| fits(pattern, shown) || fits(pattern, full))
    }
}

/// The name under which a tool is known whatever its caller calls it: at `/mcp/<backend>` names are
/// shorter, and a limit must not be.
fn full_name(aim: Option<&Aim>) -> String {
    aim.map(|aim| format!("{}__{}", aim.backend, aim.own)).unwrap_or_default()
}

/// Whoever is the same to a limit: one caller, or all strangers of one network that is mostly one
/// household's.
pub fn whose(caller: &Caller) -> Caller {
    match caller {
        Caller::Stranger(address) => Caller::Stranger(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
            address @ IpAddr::V4(_) => address,
        }),
        other => other.clone(),
    }
}
