//! Which words of MCP do we know: methods, revisions, reserved keys, log levels?
//!
//! Names only; what is done about them stands where it is done.

use std::fmt;

/// The methods that a client may ask for and that we treat in a way of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Initialize,
    Ping,
    Discover,
    ToolsList,
    ToolsCall,
    PromptsList,
    PromptsGet,
    ResourcesList,
    ResourcesRead,
    TemplatesList,
    Complete,
    SetLevel,
    Subscribe,
    Unsubscribe,
    Listen,
    TasksGet,
    TasksResult,
    TasksList,
    TasksCancel,
    TasksUpdate,
    SkillsList,
    SkillsGet,
    DirectoryRead,
}

const METHODS: [(Method, &str); 23] = [
    (Method::ToolsCall, "tools/call"),
    (Method::ToolsList, "tools/list"),
    (Method::Initialize, "initialize"),
    (Method::Ping, "ping"),
    (Method::Discover, "server/discover"),
    (Method::PromptsList, "prompts/list"),
    (Method::PromptsGet, "prompts/get"),
    (Method::ResourcesList, "resources/list"),
    (Method::ResourcesRead, "resources/read"),
    (Method::TemplatesList, "resources/templates/list"),
    (Method::Complete, "completion/complete"),
    (Method::SetLevel, "logging/setLevel"),
    (Method::Subscribe, "resources/subscribe"),
    (Method::Unsubscribe, "resources/unsubscribe"),
    (Method::Listen, "subscriptions/listen"),
    (Method::TasksGet, "tasks/get"),
    (Method::TasksResult, "tasks/result"),
    (Method::TasksList, "tasks/list"),
    (Method::TasksCancel, "tasks/cancel"),
    (Method::TasksUpdate, "tasks/update"),
    (Method::SkillsList, "skills/list"),
    (Method::SkillsGet, "skills/get"),
    (Method::DirectoryRead, "resources/directory/read"),
];

impl Method {
    pub fn parse(name: impl AsRef<[u8]>) -> Option<Self> {
        let name = name.as_ref();
        METHODS.iter().find(|(_, known)| known.as_bytes() == name).map(|(method, _)| *method)
    }

    pub fn name(self) -> &'static str {
        METHODS.iter().find(|(method, _)| *method == self).map_or("", |(_, name)| name)
    }

    /// Does a request of this revision family know the method at all?
    pub fn exists_in(self, era: Era) -> bool {
        match self {
            Self::Initialize | Self::Ping | Self::SetLevel | Self::Subscribe | Self::Unsubscribe => {
                era == Era::Legacy
            }
            Self::TasksResult | Self::TasksList => era == Era::Legacy,
            Self::Discover
            | Self::Listen
            | Self::TasksUpdate
            | Self::SkillsList
            | Self::SkillsGet
            | Self::DirectoryRead => era == Era::Modern,
            _ => true,
        }
    }

    /// The member of `params` that names what the request is for, where there is one.
    pub fn target(self) -> Option<&'static str> {
        match self {
            Self::SkillsGet | Self::DirectoryRead => Some("uri"),
            _ => self.header_target(),
        }
    }

    /// The same where `Mcp-Name` repeats it.
    pub fn header_target(self) -> Option<&'static str> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some("name"),
            Self::ResourcesRead => Some("uri"),
            Self::TasksGet | Self::TasksCancel | Self::TasksUpdate => Some("taskId"),
            _ => None,
        }
    }

    /// The list in the result, for the methods that page through one.
    pub fn list(self) -> Option<List> {
        match self {
            Self::ToolsList => Some(List::Tools),
            Self::PromptsList => Some(List::Prompts),
            Self::ResourcesList => Some(List::Resources),
            Self::TemplatesList => Some(List::Templates),
            Self::SkillsList => Some(List::Skills),
            _ => None,
        }
    }
}

/// What a catalog consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum List {
    Tools,
    Prompts,
    Resources,
    Templates,
    /// Of the extension "Skills" of 2026-07-28.
    Skills,
}

impl List {
    pub const ALL: [Self; 5] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates, Self::Skills];

    pub fn method(self) -> Method {
        match self {
            Self::Tools => Method::ToolsList,
            Self::Prompts => Method::PromptsList,
            Self::Resources => Method::ResourcesList,
            Self::Templates => Method::TemplatesList,
            Self::Skills => Method::SkillsList,
        }
    }

    /// The member of the result that holds the list.
    pub fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
            Self::Skills => "skills",
        }
    }

    /// The member of an entry that identifies it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources | Self::Skills => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    /// The capability or the extension under which a server declares that it has such a list.
    pub fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
            Self::Skills => extension::SKILLS,
        }
    }

    /// The notification that the list has changed.
    pub fn changed(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources | Self::Templates | Self::Skills => "notifications/resources/list_changed",
        }
    }
}

/// With a handshake and a session, or with every request on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    Legacy,
    Modern,
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        })
    }
}

/// This gateway, as it introduces itself to clients and servers: a JSON object.
pub const INTRODUCTION: &str =
    concat!("{\"name\":\"waystation\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}");

/// A revision of the protocol, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Revision {
    V2024_11_05,
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
    V2026_07_28,
}

impl Revision {
    pub const ALL: [Self; 5] =
        [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];
    /// The newest revision that opens with `initialize`.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;
    /// The newest revision of all.
    pub const NEWEST: Self = Self::V2026_07_28;

    pub fn parse(text: impl AsRef<[u8]>) -> Option<Self> {
        let text = text.as_ref();
        Self::ALL.into_iter().rev().find(|revision| revision.name().as_bytes() == text)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The name as JSON.
    pub fn quoted(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "\"2024-11-05\"",
            Self::V2025_03_26 => "\"2025-03-26\"",
            Self::V2025_06_18 => "\"2025-06-18\"",
            Self::V2025_11_25 => "\"2025-11-25\"",
            Self::V2026_07_28 => "\"2026-07-28\"",
        }
    }

    pub fn era(self) -> Era {
        if self == Self::V2026_07_28 { Era::Modern } else { Era::Legacy }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reserved members of `_meta` (revision 2026-07-28, "Reserved keys").
pub mod meta {
    pub const PREFIX: &str = "io.modelcontextprotocol/";
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    pub const PROGRESS_TOKEN: &str = "progressToken";
    /// Of 2025-11-25: the task that a message belongs to.
    pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
    /// What a result of 2025-11-25 says of tasks, which means nothing in the modern era.
    pub const OF_LEGACY_TASKS: [&str; 2] = [RELATED_TASK, "io.modelcontextprotocol/model-immediate-response"];

    /// The keys of a request that are about this hop and are written anew for the next one.
    pub const OF_A_HOP: [&str; 5] =
        [PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, PROGRESS_TOKEN];
}

/// Syslog's severities (RFC 5424), mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

/// With their names as JSON.
const LEVELS: [(Level, &str); 8] = [
    (Level::Debug, "\"debug\""),
    (Level::Info, "\"info\""),
    (Level::Notice, "\"notice\""),
    (Level::Warning, "\"warning\""),
    (Level::Error, "\"error\""),
    (Level::Critical, "\"critical\""),
    (Level::Alert, "\"alert\""),
    (Level::Emergency, "\"emergency\""),
];

impl Level {
    pub fn parse(name: &str) -> Option<Self> {
        LEVELS.iter().map(|(level, _)| *level).find(|level| level.name() == name)
    }

    pub fn name(self) -> &'static str {
        self.quoted().trim_matches('"')
    }

    /// The name as JSON.
    pub fn quoted(self) -> &'static str {
        LEVELS.iter().find(|(level, _)| *level == self).map_or("\"\"", |(_, quoted)| quoted)
    }
}

/// Names of extensions, as they stand under `capabilities.extensions`.
pub mod extension {
    pub const TASKS: &str = "io.modelcontextprotocol/tasks";
    pub const APPS: &str = "io.modelcontextprotocol/ui";
    pub const SKILLS: &str = "io.modelcontextprotocol/skills";
}

/// Error codes that JSON-RPC and MCP define.
pub mod code {
    pub const PARSE_ERROR: i64 = -32700;
    pub const INVALID_REQUEST: i64 = -32600;
    pub const METHOD_NOT_FOUND: i64 = -32601;
    pub const INVALID_PARAMS: i64 = -32602;
    pub const INTERNAL_ERROR: i64 = -32603;
    /// Up to 2025-11-25; from 2026-07-28 it is `INVALID_PARAMS`.
    pub const RESOURCE_NOT_FOUND: i64 = -32002;
    pub const HEADER_MISMATCH: i64 = -32020;
    pub const MISSING_CAPABILITY: i64 = -32021;
    pub const UNSUPPORTED_VERSION: i64 = -32022;
    pub const URL_ELICITATION_REQUIRED: i64 = -32042;
    /// What implementations before 2026-07-28 answer for a session they do not know.
    pub const SESSION_NOT_FOUND: i64 = -32001;
    /// What implementations before 2026-07-28 answer for a request their transport refuses.
    pub const TRANSPORT: i64 = -32000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_revision_and_level_reads_back_as_it_is_written() {
        for (method, name) in METHODS {
            assert_eq!((Method::parse(name), method.name()), (Some(method), name));
        }
        for revision in Revision::ALL {
            assert_eq!(Revision::parse(revision.name()), Some(revision));
            assert_eq!(revision.quoted(), format!("{:?}", revision.name()));
        }
        for (level, quoted) in LEVELS {
            assert_eq!(
                (Level::parse(level.name()), format!("{:?}", level.name())),
                (Some(level), quoted.into())
            );
        }
    }
}
