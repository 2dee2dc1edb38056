//! `waystation audit`: who did what?

use std::{future::Future, io, io::IsTerminal as _, time};

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::{Outcome, Sources, fail, note, print, stop, table::shortened};
use crate::{
    config::Environment,
    settings::fits,
    store::{
        self,
        audit::{Line, Reader, Wanted},
    },
};

pub const EXAMPLES: &str = "\
Examples:
  waystation audit
  waystation audit --who ada --since 1h
  waystation audit --tool 'github__delete_*' --outcome ok
  waystation audit --outcome unknown --follow
  waystation audit --since 1d --last 100000 --json | jq -r .who | sort | uniq -c

Reads what the gateway of the configuration has kept in its store, whether it runs or not. An outcome is ok,
tool-error, error, asked, task, unknown, invalid, not-allowed, refused, failed, late, cancelled, denied or lost;
docs/audit.md says what each means.";

/// How often it is looked for new lines.
const AGAIN: time::Duration = time::Duration::from_millis(500);
/// Letters of a line where nothing says how many there is room for.
const USUAL: usize = 120;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only calls of this subject, of `local`, or of `stranger*`; `*` stands for any letters.
    #[arg(long, value_name = "WHO")]
    who: Option<String>,
    /// Only calls of this tool, prompt or resource: <backend>__<name>, or the backend's name for it.
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Only what came out like this.
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// Only what came in this time, such as 1h or 7d.
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    since: Option<time::Duration>,
    /// So many at the most, the newest of them.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    last: usize,
    /// Goes on with what comes, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Prints each line as a JSON object, with all that is kept.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sources: Sources,
}

pub fn audit(arguments: &Arguments, common: Sources, environment: &Environment) -> Outcome {
    let loaded = match arguments.sources.clone().or(common).load(environment) {
        Ok(loaded) => loaded,
        Err(outcome) => return outcome,
    };
    let config = &loaded.config;
    if !config.audit.store.unwrap_or(config.identify != Default::default()) {
        note("this configuration keeps no trail; write store = true in [audit]");
    }
    stop::run(|stop| async move {
        tokio::select! {
            outcome = read(arguments, &loaded.config.store) => outcome,
            () = stop.cancelled() => Outcome::Done,
        }
    })
}

fn read(arguments: &Arguments, store: &crate::store::Settings) -> impl Future<Output = Outcome> {
    let ago = |since: time::Duration| {
        let since = SignedDuration::try_from(since).unwrap_or(SignedDuration::MAX);
        Timestamp::now().checked_sub(since).unwrap_or(Timestamp::MIN)
    };
    let mut wanted = Wanted { since: arguments.since.map(ago), after: 0, last: arguments.last };
    async move {
        let reader = match Reader::open(store).await {
            Ok(reader) => reader,
            Err(why) => return fail(format_args!("{why}; is it the store of a gateway that has run?")),
        };
        let room = room();
        if !arguments.json {
            print(&row(["TIME", "WHO", "WHAT", "OUTCOME", "MS"], room));
        }
        loop {
            let read = async {
                Ok((reader.newest().await?, reader.lines(wanted, |line| arguments.want(line)).await?))
            };
            let (newest, lines) = match read.await {
                Ok(read) => read,
                Err::<_, store::Error>(why) => return fail(why),
            };
            // What has been looked through need not be looked through again.
            wanted.after = lines.last().map_or(newest, |(number, _)| newest.max(*number));
            let text: String = lines.iter().map(|(_, line)| drawn(line, arguments.json, room)).collect();
            let printed = print(&text);
            if !arguments.follow || printed != Outcome::Done {
                return printed;
            }
            wanted.last = usize::MAX;
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Arguments {
    /// Is this one of the lines that are asked for?
    fn want(&self, line: &Line<'_>) -> bool {
        let is =
            |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|pattern| fits(pattern, text));
        let target = line.target.as_deref().unwrap_or_default();
        let full = line.backend.as_ref().map(|backend| format!("{backend}__{target}"));
        is(&self.who, line.who.as_deref().unwrap_or_default())
            && (is(&self.tool, target) || full.is_some_and(|full| is(&self.tool, &full)))
            && is(&self.outcome, &line.outcome)
    }
}

/// Letters that a line has room for.
fn room() -> usize {
    let terminal =
        io::stdout().is_terminal().then(|| rustix::termios::tcgetwinsize(io::stdout()).ok()).flatten();
    terminal.map_or(USUAL, |size| usize::from(size.ws_col)).max(60)
}

fn drawn(line: &Line<'_>, json: bool, room: usize) -> String {
    if json {
        return serde_json::to_string(line).unwrap_or_default() + "\n";
    }
    let target = line.target.as_deref().unwrap_or_default();
    let mut what = match (&line.backend, &line.method) {
        (Some(backend), _) => format!("{backend}__{target}"),
        (None, Some(method)) => format!("{method} {target}"),
        (None, None) => target.to_owned(),
    };
    if let Some(count) = line.count {
        what = format!("{count} × {what}");
    }
    let outcome = match line.code {
        Some(code) => format!("{} {code}", line.outcome),
        None if line.cached => format!("{}, cached", line.outcome),
        None => line.outcome.to_string(),
    };
    let took = line.took.map(|took| format!("{:.1}", took as f64 / 1000.0)).unwrap_or_default();
    let who = line.who.as_deref().unwrap_or("-");
    row([&format!("{:.0}", line.at), who, &what, &outcome, &took], room)
}

/// A row of columns that are as wide in each batch of lines. Who and what share what is left.
fn row(cells: [&str; 5], room: usize) -> String {
    const TIME: usize = 20;
    const OUTCOME: usize = 17;
    const TOOK: usize = 9;
    let left = room.saturating_sub(TIME + OUTCOME + TOOK + 8);
    let (who, what) = (left * 2 / 5, left - left * 2 / 5);
    let cell = |index: usize, width: usize| {
        let text = shortened(cells[index], width);
        let pad = width.saturating_sub(text.chars().count());
        if index == 4 { " ".repeat(pad) + &text } else { text + &" ".repeat(pad) }
    };
    let cells = [cell(0, TIME), cell(1, who), cell(2, what), cell(3, OUTCOME), cell(4, TOOK)];
    cells.join("  ").trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn lines_are_asked_for_by_patterns() {
        let line = Line {
            who: Some("b[o]b?".into()),
            backend: Some("files".into()),
            target: Some("read".into()),
            outcome: "ok".into(),
            ..Line::default()
        };
        for (typed, wanted) in [
            ("audit", true),
            ("audit --who b[o]b? --tool files__re* --outcome ok", true),
            ("audit --who *o* --tool read --outcome o*", true),
            ("audit --who bob?", false),
            ("audit --tool files__write", false),
            ("audit --outcome unknown", false),
        ] {
            let arguments = Typed::parse_from(typed.split(' ')).arguments;
            assert_eq!(arguments.want(&line), wanted, "{typed}");
            let nobody = Line { who: None, ..line.clone() };
            assert_eq!(arguments.want(&nobody), wanted && arguments.who.is_none(), "{typed}");
        }
    }

    #[test]
    fn lines_fit_their_terminal_whatever_is_in_them() {
        let line = Line {
            at: Timestamp::from_second(1_700_000_000).unwrap(),
            who: Some("ada\u{1b}[2J\n\u{2028}lovelace@example.com, whose name is long".into()),
            backend: Some("time".into()),
            target: Some("now".into()),
            outcome: "failed".into(),
            code: Some(502),
            took: Some(12_345),
            ..Line::default()
        };
        let text = drawn(&line, false, 80);
        assert_eq!(
            text,
            "2023-11-14T22:13:20Z  ada[2J lo…  time__now         failed 502              12.3\n"
        );
        assert_eq!(drawn(&line, false, 200).lines().count(), 1);
        let denied = Line { count: Some(7), target: Some("no token".into()), ..Line::default() };
        assert!(drawn(&denied, false, 120).contains("7 × no token"));
    }
}
