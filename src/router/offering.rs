//! What does one backend offer: its lists, read to their last page?
//!
//! A server decides how long its pages are and what its cursors look like, and some decide
//! badly. A cursor that comes a second time would lead in a circle, so it ends the reading with
//! an error; a cursor that a server has forgotten begins the reading anew, once. Either a list
//! is read whole or there is an error that says why not; half a list is never taken for one.

use std::{borrow::Cow, collections::HashSet, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    backend::{Ask, Backend},
    call::{Answer, Call, Caller, Client, Event, Reply, Scope},
    error::{Error, Result},
    wire::{
        capability::Capabilities,
        json::{self, Limits},
        mcp::{Era, List, Revision, code},
        message::Message,
    },
};

/// How long one page may take.
const PAGE: Duration = Duration::from_secs(30);
/// How many entries one list of one backend may have.
const MOST_ENTRIES: usize = 100_000;

/// An entry of a list, as the backend wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, URI or URI template that identifies it there.
    pub key: String,
    pub text: Bytes,
}

/// What a backend offers, in the backend's own names and order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offering {
    lists: [Vec<Entry>; List::ALL.len()],
    pub instructions: Option<String>,
    /// The era the backend spoke, so that it need not be asked again after a restart.
    pub era: Option<Era>,
    /// Entries that could not be taken, and why.
    pub faults: Vec<String>,
}

/// The form in which an offering is kept on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// In the order of [`List::ALL`], to which others may be added.
    lists: Vec<Vec<Box<RawValue>>>,
    instructions: Option<String>,
    #[serde(default)]
    modern: Option<bool>,
}

impl Offering {
    pub fn list(&self, list: List) -> &[Entry] {
        &self.lists[list as usize]
    }

    pub fn set(&mut self, list: List, entries: Vec<Entry>) {
        self.lists[list as usize] = entries;
    }

    pub fn to_json(&self) -> String {
        let raw = |entry: &Entry| {
            let text = String::from_utf8_lossy(&entry.text).into_owned();
            RawValue::from_string(text).expect("an entry was read as JSON")
        };
        let lists = self.lists.iter().map(|list| list.iter().map(raw).collect()).collect();
        let modern = self.era.map(|era| era == Era::Modern);
        let kept = Kept { lists, instructions: self.instructions.clone(), modern };
        serde_json::to_string(&kept).expect("an offering can be written")
    }

    pub fn from_json(text: &str) -> Option<Self> {
        let kept: Kept = serde_json::from_str(text).ok()?;
        let era = kept.modern.map(|modern| if modern { Era::Modern } else { Era::Legacy });
        let mut offering = Self { instructions: kept.instructions, era, ..Self::default() };
        for (list, texts) in List::ALL.into_iter().zip(kept.lists) {
            let entry =
                |text: Box<RawValue>| entry(list, Bytes::from(String::from(Box::<str>::from(text)))).ok();
            offering.set(list, texts.into_iter().filter_map(entry).collect());
        }
        Some(offering)
    }
}

/// Reads everything that a backend says it has.
pub async fn read(backend: &dyn Backend, name: &str) -> Result<Offering> {
    let mut offering = Offering::default();
    for list in List::ALL {
        let declared = backend.offer().is_none_or(|offer| declares(&offer.capabilities, list.capability()));
        if declared {
            let (entries, faults) = read_list(backend, name, list).await?;
            offering.set(list, entries);
            offering.faults.extend(faults);
        }
    }
    offering.era = backend.offer().map(|offer| offer.era);
    offering.instructions = backend.offer().and_then(|offer| offer.instructions.clone());
    Ok(offering)
}

fn declares(capabilities: &str, capability: &str) -> bool {
    let has = |object: &[u8]| json::member(object, capability).is_some();
    let all = capabilities.as_bytes();
    has(all) || json::member(all, "extensions").is_some_and(has)
}

async fn read_list(backend: &dyn Backend, name: &str, list: List) -> Result<(Vec<Entry>, Vec<String>)> {
    let mut begun_anew = false;
    'anew: loop {
        let (mut entries, mut faults) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        let mut cursor: Option<String> = None;
        loop {
            let answered = tokio::time::timeout(PAGE, ask(backend, list, cursor.as_deref())).await;
            let message =
                answered.map_err(|_| Error::backend(name, format!("no {} within 30 s", list.member())))??;
            match error_code(&message) {
                None => {}
                // Some servers declare more than they serve; what is not served is not there.
                Some(code::METHOD_NOT_FOUND) => return Ok((Vec::new(), Vec::new())),
                Some(code::INVALID_PARAMS) if cursor.is_some() && !begun_anew => {
                    begun_anew = true;
                    continue 'anew;
                }
                Some(_) => return Err(Error::backend(name, refusal(&message, list))),
            }
            let next =
                page(&message, list, &mut entries, &mut faults).map_err(|why| Error::backend(name, why))?;
            if entries.len() > MOST_ENTRIES {
                let why = format!("{} has over {MOST_ENTRIES} entries", list.method().name());
                return Err(Error::backend(name, why));
            }
            let legacy = backend.offer().is_none_or(|offer| offer.era == Era::Legacy);
            match next {
                None => return Ok((entries, faults)),
                // Only since 2026-07-28 is it said that an empty cursor is one.
                Some(next) if next.is_empty() && legacy => return Ok((entries, faults)),
                Some(next) if !seen.insert(next.clone()) => {
                    let why =
                        format!("{} repeats a cursor, so its pages would never end", list.method().name());
                    return Err(Error::backend(name, why));
                }
                Some(next) => cursor = Some(next),
            }
        }
    }
}

fn error_code(message: &Message) -> Option<i64> {
    std::str::from_utf8(message.in_error("code")?).ok()?.parse().ok()
}

fn refusal(message: &Message, list: List) -> String {
    let why = message.in_error("message").and_then(json::string).unwrap_or_default();
    format!("{} was refused: {why}", list.method().name())
}

async fn ask(backend: &dyn Backend, list: List, cursor: Option<&str>) -> Result<Message> {
    use futures_util::StreamExt as _;
    let params =
        cursor.map_or_else(|| "{}".into(), |cursor| format!("{{\"cursor\":{}}}", json::quoted(cursor)));
    let name = list.method().name();
    let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"{name}\",\"params\":{params}}}");
    let call = Call::new(
        Caller::Gateway,
        Scope::All,
        list.method(),
        Message::parse(text.into(), &Limits::REQUEST)?,
        Client {
            revision: Revision::NEWEST,
            capabilities: Capabilities::NONE,
            info: Bytes::from_static(b"{}"),
        },
    );
    let mut answer = match backend.answer(Ask::as_is(call)).await? {
        Reply::Whole(answer) => Some(answer),
        Reply::Stream(mut events) => loop {
            match events.next().await {
                Some(event) => {
                    if let Event::Answer(answer) = event? {
                        break Some(answer);
                    }
                }
                None => break None,
            }
        },
    };
    match answer.take() {
        Some(Answer::Response { message, .. }) => Ok(message),
        Some(Answer::Result(text)) => {
            let text = [b"{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":", &*text, b"}"].concat();
            Ok(Message::parse(text.into(), &Limits::REPLY)?)
        }
        Some(Answer::Asks(_)) => Err(Error::NoInput),
        None => Err(Error::Busy("the answer was cut off".into())),
    }
}

/// Takes the entries of one page; returns the cursor to the next.
fn page(
    message: &Message,
    list: List,
    entries: &mut Vec<Entry>,
    faults: &mut Vec<String>,
) -> Result<Option<String>, String> {
    let place = message.field(list.member()).filter(|place| message.text()[place.start] == b'[');
    let place =
        place.ok_or_else(|| format!("{} without a list {:?}", list.method().name(), list.member()))?;
    let array = message.slice(place);
    for span in json::elements(&array) {
        // Copied, so that one small entry does not keep a whole page in memory.
        let text = Bytes::copy_from_slice(&array[span.start..span.end]);
        match entry(list, text) {
            Ok(entry) => entries.push(entry),
            Err(why) => faults.push(format!("an entry of {}: {why}", list.method().name())),
        }
    }
    match message.in_result("nextCursor") {
        None | Some(b"null") => Ok(None),
        Some(cursor) => match json::string(cursor) {
            Some(cursor) => Ok(Some(cursor.into_owned())),
            None => Err(format!("{} with a cursor that is no text", list.method().name())),
        },
    }
}

fn entry(list: List, text: Bytes) -> Result<Entry, String> {
    let key = json::member(&text, list.key()).and_then(json::string).map(Cow::into_owned);
    match key {
        Some(key) => Ok(Entry { key, text }),
        None => Err(format!("it has no text {:?}", list.key())),
    }
}
