//! What does one caller see, now and whenever it is asked again?

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::broadcast;

use super::{
    catalog::{Catalog, Change},
    view::View,
};
use crate::{
    call::{Caller, Permit, Scope},
    weaken,
    wire::mcp::{Era, List},
};

/// A caller at an endpoint.
#[derive(Debug, Clone)]
pub struct Sight {
    pub(super) catalog: Arc<Catalog>,
    pub(super) permit: Arc<dyn Permit>,
    pub scope: Scope,
    pub caller: Caller,
}

impl Sight {
    pub fn view(&self) -> Option<Arc<View>> {
        self.catalog.snapshot().seen(&self.scope, &self.caller, &*self.permit)
    }

    /// Tells what changes for anybody.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.catalog.changes()
    }

    /// Lists that read otherwise than by these rules.
    pub fn unlike(&self, before: &dyn Permit) -> BTreeSet<List> {
        let snapshot = self.catalog.snapshot();
        let seen = |permit| snapshot.seen(&self.scope, &self.caller, permit);
        let (before, now) = (seen(before), seen(&*self.permit));
        let differs = |list: &List| match (&before, &now) {
            (Some(before), Some(now)) => {
                !before.listing(*list, Era::Legacy).same_as(now.listing(*list, Era::Legacy))
            }
            (None, None) => false,
            (Some(one), None) | (None, Some(one)) => !one.listing(*list, Era::Legacy).is_empty(),
        };
        List::ALL.into_iter().filter(|list| differs(list) || weaken::is("permit-tells-all")).collect()
    }
}
