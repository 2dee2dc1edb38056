//! How do callers reach a server at which each has an account?
//!
//! By the same address and the same sockets, each with a proof of their own in every request.

use std::sync::Arc;

use super::{credential::Door, http::Http, transport::Connect};
use crate::{call::Caller, error::Result};

#[derive(Debug)]
pub struct Personal {
    pub door: Arc<Door>,
    pub http: Http,
}

impl Personal {
    /// The ways of one caller.
    pub fn ways(&self, caller: &Caller) -> Result<Vec<Arc<dyn Connect>>> {
        let account = self.door.account(caller)?;
        Ok(vec![Arc::new(self.http.proving(account))])
    }
}
