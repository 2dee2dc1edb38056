//! What does a client see, and what does each name it sees stand for?
//!
//! A [`Snapshot`] is built anew whenever a backend's offering changes, and never changed: a
//! call looks its name up in one table and takes no lock. Lists are made of ready texts, the
//! first page of each as one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use dashmap::DashMap;

use super::{
    names::{self, Names, Origin},
    offering::{Entry, Offering},
};
use crate::{
    backend::{Backend, Mirrored, TaskSupport, sampler},
    call::{Grant, Hints, Kind, Scope},
    wire::{
        icon::safe_icons,
        json,
        mcp::{Era, INTRODUCTION, List, Method, extension, meta},
        project,
    },
};

mod permitted; // for callers who may not use everything
mod tool; //      what a tool says of itself

pub use permitted::{Key, arguments, completed, kind};

/// A backend, with what its names are called after.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    pub prefix: String,
    /// How long its first answer may be waited for.
    pub patience: Duration,
    /// Who writes texts of a model for it where clients cannot.
    pub sampler: Option<sampler::Settings>,
    pub backend: Arc<dyn Backend>,
}

/// What one name stands for.
#[derive(Debug, Clone)]
pub struct Route {
    pub upstream: Arc<Upstream>,
    /// What the backend calls it.
    pub target: Arc<str>,
    pub mirrored: Arc<[Mirrored]>,
    /// The output schema is wrapped in lists for the legacy era, and so must results be.
    pub wrapped: bool,
    pub task_support: TaskSupport,
    pub hints: Hints,
    /// It may be used with any arguments, and by this caller as they are.
    pub free: bool,
}

/// What only reads, as all do that are no tools.
const READS: Hints = Hints { read_only: true, idempotent: true, destructive: Some(false), open_world: None };

/// Everything clients can see at one moment.
#[derive(Debug)]
pub struct Snapshot {
    all: Arc<View>,
    one: BTreeMap<Arc<str>, Arc<View>>,
    /// What is seen by whom not everything is granted, once it was asked for.
    permitted: DashMap<Key, Option<Arc<View>>, foldhash::fast::RandomState>,
    /// What is not shown, or not under its usual name, and why.
    pub notes: Vec<Note>,
}

/// A remark on one thing that a backend offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub backend: Arc<str>,
    pub name: String,
    pub shown_as: Option<String>,
    pub why: String,
}

/// What names stand for.
type Routes = HashMap<String, Route, foldhash::fast::RandomState>;

/// What is seen at one endpoint.
#[derive(Debug, Default)]
pub struct View {
    tools: Routes,
    prompts: Routes,
    resources: Routes,
    templates: Vec<(String, Route)>,
    skills: Routes,
    /// What the files of each skill begin with, and whose they are.
    skill_folders: Vec<(String, Route)>,
    upstreams: Vec<Arc<Upstream>>,
    lists: HashMap<(List, Era), Listing>,
    pub instructions: String,
    /// What each backend says of itself, of which the instructions are made.
    said: Vec<(Arc<str>, String)>,
    /// With names of their own.
    bare: bool,
    /// URIs that go by another spelling here, by backend and the backend's own spelling.
    apart: HashSet<(Arc<str>, String)>,
    /// What may be used, where that is not everything: what all of these allow.
    grants: Vec<Arc<dyn Grant>>,
}

/// One list in the words of one era, in the order of its keys.
#[derive(Debug, Default)]
pub struct Listing {
    entries: Vec<(String, Bytes)>,
    first_page: OnceLock<Bytes>,
}

/// Instructions of all backends together are cut off here, in bytes.
const INSTRUCTIONS: usize = 16 << 10;

impl Snapshot {
    pub fn build(offered: &[(Arc<Upstream>, Arc<Offering>)]) -> Self {
        let mut notes = Vec::new();
        let all = View::build(offered, false, &mut notes);
        let one = offered.iter().map(|part| {
            let alone = std::slice::from_ref(part);
            (Arc::clone(&part.0.name), Arc::new(View::build(alone, true, &mut Vec::new())))
        });
        Self { all: Arc::new(all), one: one.collect(), permitted: DashMap::default(), notes }
    }

    pub fn view(&self, scope: &Scope) -> Option<&Arc<View>> {
        match scope {
            // What is in a set is chosen from all.
            Scope::All | Scope::Set(_) => Some(&self.all),
            Scope::One(name) => self.one.get(&**name),
        }
    }
}

impl View {
    /// Names of tools and prompts get their prefix unless `bare`.
    fn build(offered: &[(Arc<Upstream>, Arc<Offering>)], bare: bool, notes: &mut Vec<Note>) -> Self {
        let mut view =
            Self { upstreams: offered.iter().map(|(one, _)| Arc::clone(one)).collect(), ..Self::default() };
        for list in List::ALL {
            let mut legacy = Vec::new();
            let mut modern = Vec::new();
            let mut names = Names::default();
            for (index, (upstream, offering)) in offered.iter().enumerate() {
                let mut own = HashSet::new();
                for entry in offering.list(list) {
                    if !own.insert(&entry.key) {
                        let why = "it stands twice in the backend's list; the first is taken";
                        notes.push(note(upstream, entry, None, why));
                        continue;
                    }
                    let shown = match shown_as(list, upstream, entry, bare, index, &mut names) {
                        Ok((shown, true)) => {
                            let why = "the usual name is another backend's already; set `prefix` to choose";
                            notes.push(note(upstream, entry, Some(shown.clone()), why));
                            shown
                        }
                        Ok((shown, false)) => shown,
                        Err(why) => {
                            notes.push(note(upstream, entry, None, why));
                            continue;
                        }
                    };
                    match view.add(list, upstream, entry, &shown) {
                        Ok((old, new)) => {
                            legacy.push((shown.clone(), old));
                            modern.push((shown, new));
                        }
                        Err(why) => notes.push(note(upstream, entry, None, &why)),
                    }
                }
            }
            view.lists.insert((list, Era::Legacy), Listing::sorted(legacy));
            view.lists.insert((list, Era::Modern), Listing::sorted(modern));
        }
        let said = offered.iter().filter_map(|(upstream, offering)| {
            let own = offering.instructions.as_deref().filter(|own| !own.trim().is_empty())?;
            Some((Arc::clone(&upstream.name), own.to_owned()))
        });
        (view.said, view.bare) = (said.collect(), bare);
        view.instructions = instructions(&view.said, bare);
        view
    }

    /// Makes the route of an entry; returns the entry's text for each era.
    fn add(
        &mut self,
        list: List,
        upstream: &Arc<Upstream>,
        entry: &Entry,
        shown: &str,
    ) -> Result<(Bytes, Bytes), String> {
        let mut route = Route {
            upstream: Arc::clone(upstream),
            target: entry.key.as_str().into(),
            mirrored: Arc::default(),
            wrapped: false,
            task_support: TaskSupport::None,
            hints: READS,
            free: true,
        };
        let text = safe_icons(&entry.text).map_or_else(|| entry.text.clone(), Bytes::from);
        match list {
            List::Tools => {
                route.mirrored = tool::mirrored(&entry.text)?.into();
                route.task_support = tool::task_support(&entry.text);
                route.hints = tool::hints(&entry.text);
                let (old, wrapped) = project::tool(&text, shown, Era::Legacy);
                let (new, _) = project::tool(&text, shown, Era::Modern);
                route.wrapped = wrapped;
                self.tools.insert(shown.to_owned(), route);
                self.add_page(&entry.text, upstream);
                return Ok((old.into(), new.into()));
            }
            List::Prompts => {
                self.prompts.insert(shown.to_owned(), route);
            }
            List::Resources => {
                self.resources.insert(shown.to_owned(), route);
            }
            List::Templates => self.templates.push((shown.to_owned(), route)),
            List::Skills => {
                if let Some((folder, _)) = shown.rsplit_once('/') {
                    self.skill_folders.push((format!("{folder}/"), route.clone()));
                }
                self.skills.insert(shown.to_owned(), route);
            }
        }
        if matches!(list, List::Resources | List::Templates | List::Skills) && shown != entry.key {
            self.apart.insert((Arc::clone(&upstream.name), entry.key.clone()));
        }
        let text = if shown == entry.key { text } else { project::entry(&text, list.key(), shown).into() };
        Ok((text.clone(), text))
    }

    /// The page by which an app shows a tool: a resource that need not be listed (extension
    /// "MCP Apps").
    fn add_page(&mut self, tool: &[u8], upstream: &Arc<Upstream>) {
        if memchr::memmem::find(tool, b"ui://").is_none() {
            return;
        }
        let tool: serde_json::Value = serde_json::from_slice(tool).unwrap_or_default();
        let meta = &tool["_meta"];
        let page = meta["ui"]["resourceUri"].as_str().or_else(|| meta["ui/resourceUri"].as_str());
        if let Some(page) = page {
            let route = to(upstream, page.to_owned());
            self.resources.entry(page.to_owned()).or_insert(route);
        }
    }

    pub fn listing(&self, list: List, era: Era) -> &Listing {
        &self.lists[&(list, era)]
    }

    /// The route of a call, if the target is one that can be seen here.
    pub fn route(&self, method: Method, target: &str) -> Option<Route> {
        match method {
            Method::ToolsCall => self.tools.get(target).cloned(),
            Method::PromptsGet => self.prompts.get(target).cloned(),
            Method::SkillsGet if self.skills.contains_key(target) => self.skills.get(target).cloned(),
            Method::ResourcesRead | Method::SkillsGet | Method::DirectoryRead => self.resource(target),
            _ => None,
        }
    }

    pub fn prompt(&self, name: &str) -> Option<Route> {
        self.prompts.get(name).cloned()
    }

    pub fn tools(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.tools.iter().map(|(name, route)| (name.as_str(), route))
    }

    /// Does a resource of this backend go by another spelling here?
    pub fn is_apart(&self, backend: &Arc<str>, uri: &str) -> bool {
        !self.apart.is_empty() && self.apart.contains(&(Arc::clone(backend), uri.to_owned()))
    }

    /// The URIs of this backend, as it spells them, that go by another spelling here.
    pub fn apart_of(&self, backend: &str) -> impl Iterator<Item = &str> {
        self.apart.iter().filter(move |(name, _)| **name == *backend).map(|(_, uri)| uri.as_str())
    }

    /// The extensions that pass through here and that a backend has, with its settings.
    pub fn extensions(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut found = serde_json::Map::new();
        for offer in self.upstreams.iter().filter_map(|upstream| upstream.backend.offer()) {
            let capabilities: serde_json::Value =
                serde_json::from_str(&offer.capabilities).unwrap_or_default();
            for name in [extension::APPS, extension::SKILLS] {
                if let Some(settings) = capabilities["extensions"].get(name) {
                    found.entry(name).or_insert_with(|| settings.clone());
                }
            }
        }
        found
    }

    pub fn has_apart(&self) -> bool {
        !self.apart.is_empty()
    }

    /// A resource by its URI or, in completions, by its template: one that is listed, one that
    /// a template describes, one that is told apart by its backend's name, or, since servers
    /// may have more than they list, one whose scheme only a single backend has.
    pub fn resource(&self, uri: &str) -> Option<Route> {
        let route = self.any_resource(uri)?;
        // It may not be the one that is listed, but one like it.
        self.permitted_route(Kind::Resource, uri, &route)
    }

    fn any_resource(&self, uri: &str) -> Option<Route> {
        if let Some(route) = self.resources.get(uri) {
            return Some(route.clone());
        }
        if let Some((_, route)) = self.templates.iter().find(|(template, _)| template == uri) {
            return Some(route.clone());
        }
        let fitting =
            self.templates.iter().filter_map(|(template, route)| Some((names::fits(template, uri)?, route)));
        if let Some((_, route)) = fitting.max_by_key(|(fit, _)| *fit) {
            let own = names::together(&route.upstream.name, uri).filter(|_| *route.target != *uri);
            let was_apart = self.is_apart(&route.upstream.name, &route.target);
            let target = own.filter(|_| was_apart).unwrap_or_else(|| uri.to_owned());
            return Some(Route { target: target.into(), ..route.clone() });
        }
        let within = |(folder, _): &&(String, Route)| {
            uri.starts_with(folder.as_str()) || folder.strip_suffix('/') == Some(uri)
        };
        if let Some((_, route)) = self.skill_folders.iter().find(within) {
            return Some(to(&route.upstream, uri.to_owned()));
        }
        for upstream in &self.upstreams {
            if let Some(own) = names::together(&upstream.name, uri) {
                return Some(to(upstream, own));
            }
        }
        let scheme = uri.split_once(':')?.0;
        let known = self.resources.iter();
        let known = known.chain(self.templates.iter().map(|(template, route)| (template, route)));
        let mut owners =
            known.filter(|(other, _)| other.split_once(':').is_some_and(|(other, _)| other == scheme));
        let owner = &owners.next()?.1.upstream;
        owners.all(|(_, route)| Arc::ptr_eq(&route.upstream, owner)).then(|| to(owner, uri.to_owned()))
    }
}

/// The route to something that a backend has without listing it.
fn to(upstream: &Arc<Upstream>, target: String) -> Route {
    Route {
        upstream: Arc::clone(upstream),
        target: target.into(),
        mirrored: Arc::default(),
        wrapped: false,
        task_support: TaskSupport::None,
        hints: READS,
        free: true,
    }
}

fn note(upstream: &Upstream, entry: &Entry, shown_as: Option<String>, why: &str) -> Note {
    Note { backend: Arc::clone(&upstream.name), name: entry.key.clone(), shown_as, why: why.to_owned() }
}

/// The name of an entry, and whether another had taken its usual one.
fn shown_as(
    list: List,
    upstream: &Upstream,
    entry: &Entry,
    bare: bool,
    index: usize,
    names: &mut Names,
) -> Result<(String, bool), &'static str> {
    let origin = Origin { backend: index, name: entry.key.clone() };
    let wanted = match list {
        List::Tools | List::Prompts if bare => return Ok((entry.key.clone(), false)),
        List::Tools | List::Prompts => {
            if let Some(why) = names::unfit(&entry.key) {
                return Err(why);
            }
            [names::expose(&upstream.prefix, &entry.key), names::expose(&upstream.name, &entry.key)]
        }
        List::Resources | List::Templates | List::Skills => {
            [entry.key.clone(), names::apart(&upstream.name, &entry.key)]
        }
    };
    Ok(names.give(origin, wanted))
}

fn instructions(said: &[(Arc<str>, String)], bare: bool) -> String {
    let mut text = String::new();
    for (backend, own) in said {
        let part = if bare { own.to_owned() } else { format!("# {backend}\n\n{}\n\n", own.trim()) };
        if text.len() + part.len() > INSTRUCTIONS {
            break;
        }
        text.push_str(&part);
    }
    text
}

impl Listing {
    fn sorted(mut entries: Vec<(String, Bytes)>) -> Self {
        entries.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
        Self { entries, first_page: OnceLock::new() }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn same_as(&self, other: &Self) -> bool {
        self.entries == other.entries
    }

    /// The result that holds the entries after a key, and the last key if there are more.
    pub fn page(
        &self,
        list: List,
        era: Era,
        after: Option<&str>,
        size: usize,
        cursor: impl Fn(&str) -> String,
    ) -> Bytes {
        let start = after.map_or(0, |after| self.entries.partition_point(|(key, _)| key.as_str() <= after));
        let whole = start == 0 && self.entries.len() <= size;
        if whole && let Some(ready) = self.first_page.get() {
            return ready.clone();
        }
        let entries = &self.entries[start..];
        let more = entries.len() > size;
        let entries = &entries[..entries.len().min(size)];
        let next = entries.last().filter(|_| more).map(|(key, _)| cursor(key));
        let text = write_page(list, era, entries, next.as_deref());
        if whole { self.first_page.get_or_init(|| text).clone() } else { text }
    }
}

fn write_page(list: List, era: Era, entries: &[(String, Bytes)], next: Option<&str>) -> Bytes {
    let length: usize = entries.iter().map(|(_, text)| text.len() + 1).sum();
    let mut out = BytesMut::with_capacity(length + 256);
    out.put_u8(b'{');
    if era == Era::Modern {
        out.put_slice(head_of_modern().as_bytes());
    }
    if let Some(next) = next {
        out.put_slice(format!("\"nextCursor\":{},", json::quoted(next)).as_bytes());
    }
    out.put_slice(format!("\"{}\":[", list.member()).as_bytes());
    for (index, (_, text)) in entries.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(text);
    }
    out.put_slice(b"]}");
    out.freeze()
}

/// What every cacheable result of the modern era begins with. A list may change at any moment
/// and differ between callers, so it holds for no time and for nobody else.
pub fn head_of_modern() -> String {
    format!(
        "\"resultType\":\"complete\",\"ttlMs\":0,\"cacheScope\":\"private\",\"_meta\":{{\"{}\":{}}},",
        meta::SERVER_INFO,
        INTRODUCTION
    )
}
