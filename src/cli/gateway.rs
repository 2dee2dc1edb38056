//! Which gateway is asked: the one that runs, or one for this command alone?

use std::{future::Future, time::Duration};

use clap::Args;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{
    Outcome, Sources,
    client::{Client, Token},
    complain, fail, note,
    stop::{self, Interruptions},
};
use crate::{
    app,
    config::{Config, Environment, Loaded},
};

/// The variable that holds the caller's token.
const TOKEN: &str = "WAYSTATION_TOKEN";
/// How long a gateway on this machine may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The endpoint to ask, such as http://127.0.0.1:8080/mcp [default: that of the
    /// configuration; if nothing answers there, a gateway is started for this command].
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The token that says who asks [default: $WAYSTATION_TOKEN, which other users of this machine
    /// cannot see].
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<Token>,
    #[command(flatten)]
    pub sources: Sources,
}

/// Runs a command that asks a gateway, and ends what was started for it.
pub fn ask<F>(
    target: &Target,
    common: Sources,
    environment: Environment,
    command: impl FnOnce(Asked) -> F,
) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let sought = match Sought::new(target, common, &environment) {
        Ok(sought) => sought,
        Err(outcome) => return outcome,
    };
    stop::run(|stop| async move {
        let (asked, own) = match sought.reach().await {
            Ok(reached) => reached,
            Err(outcome) => return outcome,
        };
        let outcome = unless_stopped(stop, command(asked)).await;
        if let Some(own) = own {
            own.stop().await;
        }
        outcome
    })
}

/// The same for a command that goes on when something of it is interrupted.
pub fn converse(
    target: &Target,
    common: Sources,
    environment: &Environment,
    command: impl AsyncFnOnce(Asked, &mut Interruptions) -> Outcome,
) -> Outcome {
    let sought = match Sought::new(target, common, environment) {
        Ok(sought) => sought,
        Err(outcome) => return outcome,
    };
    stop::run_interruptible(async |mut interruptions| {
        let reached = tokio::select! {
            reached = sought.reach() => reached,
            _ = interruptions.next() => return Outcome::Failed,
        };
        let (asked, own) = match reached {
            Ok(reached) => reached,
            Err(outcome) => return outcome,
        };
        let outcome = command(asked, &mut interruptions).await;
        if let Some(own) = own {
            tokio::select! {
                () = own.stop() => {}
                _ = interruptions.next() => {}
            }
        }
        outcome
    })
}

/// What is known of the gateway that is to be asked.
struct Sought {
    url: Option<String>,
    /// Read where no address is named.
    loaded: Option<Loaded>,
    token: Option<Token>,
}

impl Sought {
    fn new(target: &Target, common: Sources, environment: &Environment) -> Result<Self, Outcome> {
        let loaded = match &target.url {
            Some(_) => None,
            None => Some(target.sources.clone().or(common).load(environment)?),
        };
        let usual =
            || environment.get(TOKEN).filter(|token| !token.is_empty()).map(|token| token.to_owned().into());
        Ok(Self { url: target.url.clone(), loaded, token: target.token.clone().or_else(usual) })
    }

    /// The gateway, with the one that was started because none ran.
    async fn reach(self) -> Result<(Asked, Option<app::Running>), Outcome> {
        let Self { url, loaded, token } = self;
        match (url, loaded) {
            (Some(url), _) => Ok((Asked { url, token, admin: None }, None)),
            (None, None) => unreachable!("without a URL the configuration was loaded"),
            (None, Some(loaded)) => match find(&loaded.config).await {
                Some(asked) => Ok((Asked { token, ..asked }, None)),
                None => match start(loaded.config).await {
                    Ok((own, asked)) => Ok((Asked { token, ..asked }, Some(own))),
                    Err(complaints) => Err(complain(&complaints.located(&loaded.source))),
                },
            },
        }
    }
}

/// The gateway that is asked.
#[derive(Debug)]
pub struct Asked {
    pub url: String,
    pub token: Option<Token>,
    /// Where it answers operators, if that is known, such as http://127.0.0.1:8081.
    pub admin: Option<String>,
}

impl Asked {
    pub fn client(&self) -> Result<Client, Outcome> {
        Client::new(self.url.clone(), self.token.clone()).map_err(fail)
    }
}

/// The gateway of the configuration, if something listens at its address.
async fn find(config: &Config) -> Option<Asked> {
    let address = config.listen.address;
    if address.port() == 0 {
        return None;
    }
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
    let there = matches!(connected, Ok(Ok(_)));
    there.then(|| Asked {
        url: format!("{}://{address}/mcp", config.listen.scheme()),
        token: None,
        admin: (config.listen.admin.port() != 0).then(|| format!("http://{}", config.listen.admin)),
    })
}

async fn start(config: Config) -> Result<(app::Running, Asked), crate::config::Complaints> {
    note(format_args!("no gateway at http://{}/mcp, starting one for this command", config.listen.address));
    let (running, [clients, admin]) = app::ephemeral(config).await?;
    Ok((running, Asked { url: format!("{clients}/mcp"), token: None, admin: Some(admin) }))
}

async fn unless_stopped(stop: CancellationToken, command: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        outcome = command => outcome,
        () = stop.cancelled() => Outcome::Failed,
    }
}
