//! What else is OpenRouter asked, besides chats?

use reqwest::{Method, Request};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Upstream,
    answers::{Credits, Embeddings, Endpoints, Generation, Images, KeyInfo, Rerank},
    body::Body,
    failure::{Code, Failure, Phase},
    put_json, refusal,
};

/// Models asked for at a time; the most that are given.
const PAGE: usize = 1000;
/// No catalogue has more pages.
const MOST_PAGES: usize = 20;

type Answer<T> = Result<T, Box<Failure>>;

impl Upstream {
    /// All models, of all pages, as they were written. `filters` narrow them down to what the catalogue
    /// itself does not say: `providers`, `category`, `zdr`, `q` and so on.
    pub async fn models(&self, filters: &[(&str, &str)]) -> Answer<Vec<Value>> {
        let mut all: Vec<Value> = Vec::new();
        for _ in 0..MOST_PAGES {
            let mut page = self.ask(self.page(filters, all.len())?).await?;
            let Value::Array(models) = page["data"].take() else {
                return Err(Box::new(unexpected("the list of models has no `data`")));
            };
            let last = models.is_empty();
            all.extend(models);
            let more = page["links"]["next"].is_string()
                || page["total_count"].as_u64().is_some_and(|total| total > all.len() as u64);
            // Where the next page is follows from how many there were: no address of others is needed.
            if last || !more {
                return Ok(all);
            }
        }
        Err(Box::new(unexpected("the list of models has no end")))
    }

    /// The request for the models from there on.
    fn page(&self, filters: &[(&str, &str)], offset: usize) -> Answer<Request> {
        let mut request = self.request(Method::GET, &["models"], false)?;
        let mut query = request.url_mut().query_pairs_mut();
        if filters.iter().all(|(name, _)| *name != "output_modalities") {
            query.append_pair("output_modalities", "all");
        }
        query.append_pair("limit", &PAGE.to_string()).append_pair("offset", &offset.to_string());
        query.extend_pairs(filters).finish();
        drop(query);
        Ok(request)
    }

    /// Who serves a model; none if there is no such model.
    pub async fn endpoints(&self, id: &str) -> Answer<Option<Endpoints>> {
        let path: Vec<_> = ["models"].into_iter().chain(id.split('/')).chain(["endpoints"]).collect();
        self.optional(self.request(Method::GET, &path, false)?).await
    }

    /// All providers, as they were written.
    pub async fn providers(&self) -> Answer<Vec<Value>> {
        self.data(self.request(Method::GET, &["providers"], false)?).await
    }

    pub async fn key(&self) -> Answer<KeyInfo> {
        self.data(self.request(Method::GET, &["key"], false)?).await
    }

    /// Needs a management key.
    pub async fn credits(&self) -> Answer<Credits> {
        self.data(self.request(Method::GET, &["credits"], true)?).await
    }

    /// What is on record about an answer; none until there is a record, which may take seconds.
    pub async fn generation(&self, id: &str) -> Answer<Option<Generation>> {
        let mut request = self.request(Method::GET, &["generation"], false)?;
        request.url_mut().query_pairs_mut().append_pair("id", id);
        self.optional(request).await
    }

    /// `body` is the request as the API has it.
    pub async fn embeddings(&self, body: &Value) -> Answer<Embeddings> {
        self.post(&["embeddings"], body).await
    }

    pub async fn images(&self, body: &Value) -> Answer<Images> {
        self.post(&["images"], body).await
    }

    pub async fn rerank(&self, body: &Value) -> Answer<Rerank> {
        self.post(&["rerank"], body).await
    }

    /// Any other list or table: `benchmarks`, `datasets/app-rankings`, `embeddings/models`, …
    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Answer<Value> {
        let mut request = self.request(Method::GET, path, false)?;
        if !query.is_empty() {
            request.url_mut().query_pairs_mut().extend_pairs(query);
        }
        self.ask(request).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Answer<T> {
        let mut request = self.request(Method::POST, path, false)?;
        put_json(&mut request, body)?;
        read(self.ask(request).await?)
    }

    /// What stands under `data`.
    async fn data<T: DeserializeOwned>(&self, request: Request) -> Answer<T> {
        read(self.ask(request).await?["data"].take())
    }

    /// The same, where there may be no such thing.
    async fn optional<T: DeserializeOwned>(&self, request: Request) -> Answer<Option<T>> {
        match self.data(request).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.phase == Phase::Refused && failure.http_status == Some(404) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Sends it once. An error in a success is an error.
    async fn ask(&self, request: Request) -> Answer<Value> {
        let deadline = self.deadline();
        let response = self.send(request, deadline).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let answer = Body::new(response, self.max_body, self.timers, deadline).json().await?;
        match refusal::read(&answer, Some(status), &headers, Phase::Refused) {
            Some(failure) => Err(Box::new(failure)),
            None => Ok(answer),
        }
    }
}

fn read<T: DeserializeOwned>(answer: Value) -> Answer<T> {
    serde_json::from_value(answer)
        .map_err(|_| Box::new(unexpected("the answer has another form than expected")))
}

fn unexpected(why: &str) -> Failure {
    Failure::new(Code::UpstreamProtocol, Phase::Answering, why)
}
