//! Whose key is it, what may its holder do, and what have they spent?

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::{Value, json};

use super::{catalogue::Model, clock, money::Money, refusal::Refusal};

/// What a key may spend in a month.
const LIMIT: Money = Money::dollars(100);
/// How many tokens the poor key can pay for.
const AFFORDABLE: u64 = 300;
const FREE_PER_MINUTE: usize = 20;
const MINUTE: u64 = 60_000;
const DAY: u64 = 86_400_000;

/// The keys there are. Each behaves in one way, so that a test picks the behaviour with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    Plain,
    /// Sees credits and activity, and may not chat.
    Management,
    NoCredit,
    Poor,
    /// Every other request is refused, since the one before it uses the budget.
    Budget,
    /// Has used up the free requests of the day.
    Daily,
}

impl Holder {
    /// Whose key an `Authorization` shows.
    pub fn of(authorization: Option<&str>) -> Result<Self, Refusal> {
        let key = authorization.and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
        match key.filter(|key| !key.is_empty()) {
            None => Err(Refusal::no_key()),
            Some(super::KEY) => Ok(Self::Plain),
            Some(super::MANAGEMENT_KEY) => Ok(Self::Management),
            Some("sk-or-v1-sim-nocredit") => Ok(Self::NoCredit),
            Some("sk-or-v1-sim-poor") => Ok(Self::Poor),
            Some("sk-or-v1-sim-budget") => Ok(Self::Budget),
            Some("sk-or-v1-sim-daily") => Ok(Self::Daily),
            Some("sk-or-v1-sim-disabled") => Err(Refusal::new(401, "This API key is disabled")),
            Some(_) => Err(Refusal::unknown_key()),
        }
    }

    /// Those who have bought few credits have fewer free requests.
    fn free_per_day(self) -> u64 {
        if matches!(self, Self::NoCredit | Self::Poor | Self::Daily) { 50 } else { 1000 }
    }
}

/// What was spent with each key.
#[derive(Debug, Default)]
pub struct Account {
    ledgers: HashMap<Holder, Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Day by day.
    spent: BTreeMap<String, Money>,
    free: BTreeMap<String, u64>,
    /// When the last requests to free models came, in milliseconds.
    recent: VecDeque<u64>,
    in_flight: bool,
    /// By day and model.
    activity: BTreeMap<(String, String), Activity>,
}

#[derive(Debug, Default)]
struct Activity {
    permaslug: String,
    provider: &'static str,
    requests: u64,
    prompt: u64,
    cached: u64,
    completion: u64,
    reasoning: u64,
    cost: Money,
}

/// One answer that was charged for.
#[derive(Debug)]
pub struct Purchase<'a> {
    pub model: &'a Model,
    pub prompt: u64,
    pub cached: u64,
    pub completion: u64,
    pub reasoning: u64,
    pub cost: Money,
}

impl Account {
    /// Whether a key may have an answer of up to `most` tokens of this model.
    pub fn admit(
        &mut self,
        holder: Holder,
        model: &Model,
        most: u64,
        now: u64,
        enforce: bool,
    ) -> Result<(), Refusal> {
        let ledger = self.ledgers.entry(holder).or_default();
        let (today, midnight) = (clock::date(now), (now / DAY + 1) * DAY);
        match holder {
            Holder::Management => {
                return Err(Refusal::new(403, "Management keys cannot be used for inference"));
            }
            Holder::NoCredit => return Err(Refusal::no_credit()),
            Holder::Poor if most > AFFORDABLE => return Err(Refusal::cannot_afford(most, AFFORDABLE)),
            Holder::Daily => return Err(Refusal::daily_quota(holder.free_per_day(), midnight)),
            Holder::Budget => {
                ledger.in_flight = !ledger.in_flight;
                if ledger.in_flight {
                    return Err(Refusal::in_flight());
                }
            }
            Holder::Plain | Holder::Poor => {}
        }
        if model.is_free() {
            let used = ledger.free.entry(today).or_default();
            // One that is refused counts as well.
            *used += 1;
            if enforce && *used > holder.free_per_day() {
                return Err(Refusal::daily_quota(holder.free_per_day(), midnight));
            }
            ledger.recent.push_back(now);
            while ledger.recent.front().is_some_and(|at| at + MINUTE <= now) || ledger.recent.len() > 1000 {
                ledger.recent.pop_front();
            }
            if enforce && ledger.recent.len() > FREE_PER_MINUTE {
                let reset = ledger.recent.front().map_or(now, |at| at + MINUTE);
                return Err(Refusal::per_minute(FREE_PER_MINUTE as u64, reset));
            }
        } else if ledger.since(&clock::date(now)[..7]) >= LIMIT {
            return Err(Refusal::no_credit());
        }
        Ok(())
    }

    pub fn spend(&mut self, holder: Holder, purchase: &Purchase<'_>, now: u64) {
        let ledger = self.ledgers.entry(holder).or_default();
        *ledger.spent.entry(clock::date(now)).or_default() += purchase.cost;
        let row = ledger.activity.entry((clock::date(now), purchase.model.id.clone())).or_default();
        row.permaslug.clone_from(&purchase.model.canonical);
        row.provider = purchase.model.provider().name;
        row.requests += 1;
        row.prompt += purchase.prompt;
        row.cached += purchase.cached;
        row.completion += purchase.completion;
        row.reasoning += purchase.reasoning;
        row.cost += purchase.cost;
    }

    /// As `/key` answers.
    pub fn key(&self, holder: Holder, now: u64) -> Value {
        let none = Ledger::default();
        let ledger = self.ledgers.get(&holder).unwrap_or(&none);
        let today = clock::date(now);
        let month = ledger.since(&today[..7]);
        let week = ledger.since(&clock::date(now.saturating_sub(6 * DAY)));
        let remaining = LIMIT.less(month).max(Money::ZERO);
        let (used, free) = (ledger.free.get(&today).copied().unwrap_or(0), holder.free_per_day());
        let budget = json!({
            "scope": "key_limit",
            "budget_id": null,
            "guardrail_id": null,
            "include_byok": false,
            "limit_usd": LIMIT.json(),
            "spend_usd": month.json(),
            "remaining_usd": remaining.json(),
            "reset_interval": "monthly",
            "resets_at": clock::next_month(now),
        });
        json!({ "data": {
            "label": "sk-or-v1-sim...000",
            "limit": LIMIT.json(),
            "limit_remaining": remaining.json(),
            "limit_reset": "monthly",
            "include_byok_in_limit": false,
            "usage": ledger.since("").json(),
            "usage_daily": ledger.since(&today).json(),
            "usage_weekly": week.json(),
            "usage_monthly": month.json(),
            "byok_usage": 0,
            "byok_usage_daily": 0,
            "byok_usage_weekly": 0,
            "byok_usage_monthly": 0,
            "is_free_tier": free < 1000,
            "is_management_key": holder == Holder::Management,
            "is_provisioning_key": holder == Holder::Management,
            "creator_user_id": "user_sim0000000000000000000000",
            "organization_id": null,
            "workspace_id": null,
            "expires_at": null,
            "allowed_data_regions": ["global"],
            "free_model_daily_requests": { "used": used, "limit": free, "remaining": free.saturating_sub(used) },
            "budgets": [budget],
            "effective_budget": budget,
            "rate_limit": {
                "requests": -1,
                "interval": "10s",
                "note": "This field is deprecated and safe to ignore.",
            },
        } })
    }

    /// As `/credits` answers those who may see it.
    pub fn credits(&self, holder: Holder) -> Result<Value, Refusal> {
        only_management(holder)?;
        let used: Money = self.ledgers.values().map(|ledger| ledger.since("")).sum();
        Ok(json!({ "data": { "total_credits": LIMIT.json(), "total_usage": used.json() } }))
    }

    /// As `/activity` answers those who may see it.
    pub fn activity(&self, holder: Holder, date: Option<&str>) -> Result<Value, Refusal> {
        only_management(holder)?;
        let mut rows: Vec<_> = self
            .ledgers
            .iter()
            .flat_map(|(holder, ledger)| {
                ledger.activity.iter().map(move |((day, model), row)| (day, model, *holder, row))
            })
            .filter(|(day, ..)| date.is_none_or(|date| date == day.as_str()))
            .collect();
        rows.sort_by(|one, other| (one.0, one.1, one.2).cmp(&(other.0, other.1, other.2)));
        let shown = rows.into_iter().map(|(day, model, _, row)| {
            json!({
                "date": day,
                "model": model,
                "model_permaslug": row.permaslug,
                "endpoint_id": format!("ep_{}", row.provider.to_lowercase().replace(' ', "_")),
                "provider_name": row.provider,
                "usage": row.cost.json(),
                "byok_usage_inference": 0,
                "requests": row.requests,
                "prompt_tokens": row.prompt,
                "cached_tokens": row.cached,
                "completion_tokens": row.completion,
                "reasoning_tokens": row.reasoning,
            })
        });
        Ok(json!({ "data": shown.collect::<Vec<_>>() }))
    }
}

fn only_management(holder: Holder) -> Result<(), Refusal> {
    match holder {
        Holder::Management => Ok(()),
        _ => Err(Refusal::new(403, "Only management keys can perform this operation")),
    }
}

impl Ledger {
    /// What was spent from a day on; a month is a day that begins it.
    fn since(&self, day: &str) -> Money {
        self.spent.range(day.to_owned()..).map(|(_, spent)| *spent).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::catalogue::Catalogue;

    const NOW: u64 = 1_795_000_000_000;

    #[test]
    fn free_requests_are_limited_by_the_minute_and_by_the_day() {
        let catalogue = Catalogue::new(false);
        let model = catalogue.find("acme/atlas-8b:free").unwrap();
        let mut account = Account::default();
        let mut status =
            |at: u64| account.admit(Holder::Plain, &model, 1, at, true).err().map(|no| no.status);
        assert!((0..20).all(|second| status(NOW + second * 1000).is_none()));
        assert_eq!(status(NOW + 20_000), Some(429));
        assert_eq!(status(NOW + 80_001), None);
        assert_eq!(
            (0..1000).map(|minute| status(NOW + 200_000 + minute * 4000)).filter(Option::is_none).count(),
            978
        );
    }

    #[test]
    fn the_budget_key_is_refused_every_other_time() {
        let model = Catalogue::new(false).find("acme/atlas-8b").unwrap();
        let mut account = Account::default();
        let mut fits = || account.admit(Holder::Budget, &model, 1, NOW, false).is_ok();
        assert_eq!([fits(), fits(), fits()], [false, true, false]);
    }

    #[test]
    fn spending_shows_until_the_limit_is_reached_and_the_month_ends() {
        let model = Catalogue::new(false).find("acme/atlas-8b").unwrap();
        let mut account = Account::default();
        let cost = Money::dollars(60);
        let purchase = Purchase { model: &model, prompt: 1, cached: 0, completion: 2, reasoning: 0, cost };
        account.spend(Holder::Plain, &purchase, NOW);
        assert_eq!(account.key(Holder::Plain, NOW)["data"]["limit_remaining"], 40.0);
        assert!(account.admit(Holder::Plain, &model, 1, NOW, false).is_ok());
        account.spend(Holder::Plain, &purchase, NOW);
        assert_eq!(account.key(Holder::Plain, NOW)["data"]["limit_remaining"], 0.0);
        assert_eq!(account.admit(Holder::Plain, &model, 1, NOW, false).unwrap_err().status, 402);
        assert!(account.admit(Holder::Plain, &model, 1, NOW + 31 * DAY, false).is_ok());
        assert_eq!(account.credits(Holder::Management).unwrap()["data"]["total_usage"], 120.0);
        assert!(account.credits(Holder::Plain).is_err());
    }
}
