//! Whose account does a call to a server use, and what is its caller told who has none?
//!
//! A call that needs consent is answered at once: a client that can show its user a page is asked
//! to, and any other gets the link in an error. When the user has been there, the call goes on.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use serde_json::json;

use super::{
    Credential,
    account::{Account, Borrowed},
    desk::Desk,
    flow::Terms,
};
use crate::{
    call::{Answer, Call, Caller, Given, Reply},
    error::{Error, Result},
    wire::{
        capability::{ELICIT, may_ask},
        json::{self, Limits},
        message::Message,
    },
};

/// What stands before the edition of an account in the state of a question of ours.
const STATE: &str = "waystation-connect ";
const QUESTION: &str = "connect";
/// How long a call whose user has gone to the page waits for them to be done.
const PATIENCE: Duration = Duration::from_secs(30);

/// One server at which each caller has an account of their own.
#[derive(Debug)]
pub struct Door {
    name: Arc<str>,
    terms: Arc<Terms>,
    /// Accounts are had by exchange, and nobody is asked.
    exchanged: bool,
    desk: Arc<Desk>,
    own: Arc<Borrowed>,
    opened: OnceLock<Opened>,
}

/// Told when somebody has consented.
struct Opened(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

impl Door {
    pub fn new(name: &str, terms: Terms, exchanged: bool, desk: &Arc<Desk>) -> Arc<Self> {
        let door = Arc::new_cyclic(|me: &Weak<Self>| Self {
            name: name.into(),
            terms: Arc::new(terms),
            exchanged,
            desk: Arc::clone(desk),
            own: Arc::new(Borrowed::new(me.clone())),
            opened: OnceLock::new(),
        });
        desk.add(&door);
        door
    }

    pub fn exchanges(&self) -> bool {
        self.exchanged
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// `opened` is called when somebody has consented, since the server may be read then.
    pub fn on_consent(&self, opened: impl Fn() + Send + Sync + 'static) {
        let _ = self.opened.set(Opened(Box::new(opened)));
    }

    pub fn consented(&self) {
        if let Some(Opened(opened)) = self.opened.get() {
            opened();
        }
    }

    /// What the gateway itself uses to see what there is: the account of any caller.
    pub fn own(&self) -> Arc<dyn Credential> {
        Arc::clone(&self.own) as Arc<dyn Credential>
    }

    /// An account that is connected.
    pub fn connected(&self) -> Option<Arc<Account>> {
        self.desk.connected(&self.name)
    }

    /// The account of a call's caller, connected or not.
    pub fn account(&self, caller: &Caller) -> Result<Arc<Account>> {
        let shown = match caller {
            Caller::Known(identity) => format!("{} ({})", identity.subject, identity.issuer),
            Caller::Local | Caller::Gateway => "whoever uses this gateway on its own machine".into(),
            Caller::Stranger(_) => {
                let why = "it wants its users' own accounts, and strangers have none here; come with a token";
                return Err(Error::backend(&*self.name, why));
            }
        };
        let account = self.desk.account(&self.name, caller.name(), || self.new_account(caller.name()));
        account.show(&shown);
        Ok(account)
    }

    pub fn new_account(&self, caller: String) -> Arc<Account> {
        let of = (&self.name, &self.terms, self.exchanged);
        Arc::new(Account::new(of, caller, Arc::downgrade(&self.desk)))
    }

    /// Takes what a client says to a question of ours, if it says anything. Waits for a user who
    /// has gone to the page. Says whether there was one.
    pub async fn heard(&self, call: &mut Call, account: &Account) -> Result<bool> {
        let state =
            call.given.as_ref().and_then(|given| given.state.as_deref()?.strip_prefix(STATE)?.parse().ok());
        let Some(edition) = state else { return Ok(false) };
        let given: Given = call.given.take().unwrap_or_default();
        let answer = given.answers.iter().find(|(key, _)| key == QUESTION);
        let accepts = answer.and_then(|(_, answer)| answer.as_ref().ok());
        let accepts = accepts.and_then(|answer| json::member(answer, "action"));
        if !accepts.is_some_and(|action| json::is_string(action, "accept")) {
            return Err(Error::backend(&*self.name, "it needs an account, and you did not connect one"));
        }
        account.consented(edition, PATIENCE).await;
        Ok(true)
    }
}

/// A call's reply, or the question that its caller is to be asked if it wants consent.
pub fn asks_to_visit(reply: Result<Reply>, call: &Asker, account: &Account) -> Result<Reply> {
    let Err(Error::Consent { backend, page }) = reply else { return reply };
    if !call.can_visit {
        return Err(Error::Consent { backend, page });
    }
    let message = format!("{backend} wants you to connect your account. Open the page to do so.");
    let request = json!({ "method": ELICIT, "params": { "mode": "url", "message": message, "url": page } });
    let state = format!("{STATE}{}", account.edition());
    let result = json!({ "resultType": "input_required", "inputRequests": { QUESTION: request }, "requestState": state });
    let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{result}}}");
    Ok(Reply::Whole(Answer::Asks(Message::parse(text.into(), &Limits::REPLY)?)))
}

/// Who is behind a call, as far as asking goes.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    can_visit: bool,
}

impl Asker {
    /// `heard`: they were asked already.
    pub fn of(call: &Call, heard: bool) -> Self {
        let can = call.client.capabilities.allow(ELICIT, br#"{"mode":"url"}"#);
        Self { can_visit: can && may_ask(call.method) && !heard }
    }
}
