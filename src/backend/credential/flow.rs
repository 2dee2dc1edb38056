//! How does a caller's consent become a token?
//!
//! Who gives tokens for the server is found out, the gateway becomes known to them, the browser is
//! sent there, and what it brings back is redeemed. The steps are rmcp's; what it leaves open is
//! decided here: a server that does not say that it takes S256 is refused, a client whose secret is
//! known belongs to one issuer and is shown to no other, and an answer that does not come from that
//! issuer is not looked at. (2026-07-28 "Authorization"; RFC 6749, 7591, 7636, 8414, 8707, 9207, 9728.)

use std::{sync::Arc, time::Duration};

use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationMetadata, CredentialStore as _, InMemoryCredentialStore,
    InMemoryStateStore, OAuthClientConfig, StoredCredentials,
};
use url::{Url, form_urlencoded};

use super::{
    egress::{Egress, origin_of},
    vault::{Client, Record, Vault},
};
use crate::weaken;

/// A browser may take this long to come back.
pub const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// What is known of a server, and of the gateway as its client.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The server's address.
    pub server: Url,
    pub egress: Egress,
    /// Who must give the tokens, where that is written down.
    pub issuer: Option<String>,
    /// As what the gateway is registered, by an agreement of people; or the address of a document
    /// that says what it is.
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    pub scopes: Vec<String>,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// The gateway, as browsers and authorization servers reach it.
#[derive(Debug, Clone)]
pub struct Home {
    /// Scheme, host and port.
    pub origin: String,
}

impl Home {
    pub fn redirect(&self) -> String {
        format!("{}/connect/callback", self.origin)
    }

    /// Where the gateway's own document is; none where authorization servers could not read it.
    pub fn document(&self) -> Option<String> {
        self.is_secure().then(|| format!("{}/connect/client.json", self.origin))
    }

    pub fn is_secure(&self) -> bool {
        self.origin.starts_with("https://")
    }

    /// As OpenID Connect Registration has it: redirects to this machine are a program's.
    pub fn kind(&self) -> &'static str {
        if self.is_secure() { "web" } else { "native" }
    }
}

/// A browser on its way.
pub struct Flow {
    manager: AuthorizationManager,
    tokens: InMemoryCredentialStore,
    record: Begun,
    /// What comes back with it, known to us alone.
    pub state: String,
    /// Where it was sent.
    pub to: String,
}

struct Begun {
    issuer: String,
    says_issuer: bool,
    metadata: AuthorizationMetadata,
    client: Client,
    /// The gateway has registered itself.
    registered: bool,
    scopes: Vec<String>,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flow") // It holds secrets.
    }
}

/// Who gives tokens for a server.
pub async fn discovered(
    terms: &Terms,
    challenge: Option<&str>,
) -> Result<(AuthorizationManager, AuthorizationMetadata, String), String> {
    let egress = Arc::new(terms.egress.clone());
    let manager = AuthorizationManager::new_with_oauth_http_client(terms.server.as_str(), egress).await;
    let mut manager = manager.map_err(in_words)?;
    let found = manager.resolve_metadata_from_challenge(challenge).await.map_err(in_words)?;
    if !found.source.is_discovered() {
        return Err("the server does not say who gives tokens for it (RFC 9728)".into());
    }
    let metadata = found.metadata;
    let issuer = metadata.issuer.clone().ok_or("the authorization server does not say its own name")?;
    if let Some(wanted) = &terms.issuer
        && *wanted != issuer
        && !weaken::is("credential-issuer")
    {
        return Err(format!(
            "the server names {issuer} as who gives tokens for it, and `issuer` of its table says {wanted}"
        ));
    }
    for address in [&metadata.authorization_endpoint, &metadata.token_endpoint] {
        let url = Url::parse(address).map_err(|_| format!("{address:?} is no address"))?;
        terms.egress.check(&url).map_err(|why| why.to_string())?;
    }
    manager.set_metadata(metadata.clone());
    Ok((manager, metadata, issuer))
}

impl Flow {
    /// Finds out where the browser has to go. `before` is what the caller has consented to earlier,
    /// and `challenge` what the server has said now.
    pub async fn begin(
        terms: &Terms,
        home: &Home,
        vault: Option<&Vault>,
        challenge: Option<&str>,
        before: Option<&Record>,
    ) -> Result<Self, String> {
        let (mut manager, metadata, issuer) = discovered(terms, challenge).await?;
        if !takes_s256(&metadata) && !weaken::is("credential-s256") {
            return Err(format!(
                "{issuer} does not say that it takes S256 code challenges, without which a stolen code could be used"
            ));
        }
        let tokens = InMemoryCredentialStore::new();
        manager.set_credential_store(tokens.clone());
        manager.set_state_store(InMemoryStateStore::new());
        let mut scopes = manager.select_initial_scopes(&[]).await;
        let earlier = before.filter(|before| before.issuer == issuer).map(|before| &before.scopes);
        for scope in terms.scopes.iter().chain(earlier.into_iter().flatten()) {
            if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        let (client, registered) =
            as_whom(&mut manager, terms, home, vault, (&metadata, &issuer), &scopes).await?;
        manager.configure_client(config(&client, home)).map_err(in_words)?;
        let asked: Vec<_> = scopes.iter().map(String::as_str).collect();
        let to = manager.get_authorization_url(&asked).await.map_err(in_words)?;
        let state = Url::parse(&to).ok().and_then(|url| {
            url.query_pairs().find(|(name, _)| name == "state").map(|(_, value)| value.into_owned())
        });
        let says_issuer = flag(&metadata, "authorization_response_iss_parameter_supported") == Some(true);
        let record = Begun { issuer, says_issuer, metadata, client, registered, scopes };
        Ok(Self { manager, tokens, record, state: state.unwrap_or_default(), to })
    }

    /// Redeems what the browser has brought back.
    pub async fn end(self, terms: &Terms, vault: Option<&Vault>, query: &str) -> Result<Record, String> {
        let said = |name: &str| {
            form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        let Begun { issuer, says_issuer, metadata, client, registered, scopes } = self.record;
        // To the letter, and before anything else that is said is believed (RFC 9207).
        let from = said("iss");
        let from_it = from.as_ref().map_or(!says_issuer, |from| *from == issuer);
        if !from_it && !weaken::is("credential-iss") {
            return Err("the answer does not come from the authorization server that was asked".into());
        }
        if let Some(error) = said("error") {
            return Err(format!("the authorization server said no: {}", shortened(&error)));
        }
        let code = said("code").ok_or("the browser came back without a code")?;
        let redeemed =
            self.manager.exchange_code_for_token_with_issuer(&code, &self.state, from.as_deref()).await;
        if let Err(why) = redeemed {
            if registered && why.to_string().contains("invalid_client") {
                // What it was registered as is not known there any more.
                if let Some(vault) = vault {
                    vault.forget_client(&issuer).await;
                }
            }
            return Err(in_words(why));
        }
        let tokens = self.tokens.load().await.ok().flatten().ok_or("there is no token in the answer")?;
        let resource = resource_of(&self.to).unwrap_or_else(|| terms.server.to_string());
        Ok(Record { issuer, resource, metadata, client, tokens, scopes })
    }
}

/// As which client the gateway comes: one that was agreed on, one that is told by a document, or one
/// that it registers itself, in this order.
async fn as_whom(
    manager: &mut AuthorizationManager,
    terms: &Terms,
    home: &Home,
    vault: Option<&Vault>,
    (metadata, issuer): (&AuthorizationMetadata, &str),
    scopes: &[String],
) -> Result<(Client, bool), String> {
    let reads = flag(metadata, "client_id_metadata_document_supported") == Some(true);
    let secret = terms.client_secret.as_ref().map(|Secret(text)| text.clone());
    match &terms.client_id {
        Some(id) if !is_document(id) => return Ok((Client { id: id.clone(), secret }, false)),
        Some(id) if reads => return Ok((Client { id: id.clone(), secret: None }, false)),
        _ => {}
    }
    if let Some(id) = home.document().filter(|_| reads) {
        return Ok((Client { id, secret: None }, false));
    }
    let redirect = home.redirect();
    if let Some(vault) = vault
        && let Some(client) = vault.client(issuer, &redirect).await
    {
        return Ok((client, true));
    }
    if metadata.registration_endpoint.is_none() {
        return Err(format!(
            "{issuer} registers no clients by itself; register the gateway there with the redirect address {redirect}, \
             and write `issuer`, `client_id` and `client_secret` into the backend's table [auth]"
        ));
    }
    // The kind of application can be told in no other way.
    let unknown = Client { id: "unknown".into(), secret: None };
    manager.configure_client(config(&unknown, home)).map_err(in_words)?;
    let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
    let registered = manager.register_client("Waystation", &redirect, &scopes).await.map_err(in_words)?;
    let client = Client { id: registered.client_id, secret: registered.client_secret };
    if let Some(vault) = vault {
        vault.keep_client(issuer, &redirect, &client).await;
    }
    Ok((client, true))
}

/// Fresh tokens for old ones: none if the old ones are good for nothing any more.
pub async fn refreshed(
    terms: &Terms,
    home: &Home,
    record: &Record,
) -> Result<Option<StoredCredentials>, String> {
    let egress = Arc::new(terms.egress.clone());
    let manager = AuthorizationManager::new_with_oauth_http_client(record.resource.as_str(), egress).await;
    let mut manager = manager.map_err(in_words)?;
    let tokens = InMemoryCredentialStore::new();
    tokens.save(record.tokens.clone()).await.map_err(in_words)?;
    manager.set_credential_store(tokens.clone());
    manager.set_metadata(record.metadata.clone());
    manager.configure_client(config(&record.client, home)).map_err(in_words)?;
    match manager.refresh_token().await {
        Ok(_) => Ok(tokens.load().await.ok().flatten()),
        Err(AuthError::TokenRefreshRejected(_) | AuthError::AuthorizationRequired) => Ok(None),
        Err(why) => Err(in_words(why)),
    }
}

fn config(client: &Client, home: &Home) -> OAuthClientConfig {
    let config =
        OAuthClientConfig::new(client.id.clone(), home.redirect()).with_application_type(home.kind());
    match &client.secret {
        Some(secret) => config.with_client_secret(secret.clone()),
        None => config,
    }
}

/// Is it the address of a document about a client (Client ID Metadata Documents)?
pub fn is_document(client_id: &str) -> bool {
    Url::parse(client_id).is_ok_and(|url| url.scheme() == "https" && url.path() != "/")
}

fn takes_s256(metadata: &AuthorizationMetadata) -> bool {
    let methods = metadata.code_challenge_methods_supported.as_ref();
    methods.is_some_and(|methods| methods.iter().any(|method| method == "S256"))
}

fn flag(metadata: &AuthorizationMetadata, name: &str) -> Option<bool> {
    metadata.additional_fields.get(name)?.as_bool()
}

fn resource_of(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    url.query_pairs().find(|(name, _)| name == "resource").map(|(_, value)| value.into_owned())
}

/// Words of the library's, which name addresses by their origin alone.
pub fn in_words(error: AuthError) -> String {
    match error {
        AuthError::DiscoveryRequestFailed { url, source } => {
            format!("{} cannot be asked who gives tokens: {source}", origin_of(&url))
        }
        other => shortened(&other.to_string()),
    }
}

/// What others write is not to fill a page.
fn shortened(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(300).collect()
}
