//! Which models that cost nothing are asked, and in which order?
//!
//! Those that have answered best here come first, and of what nobody knows yet those that most use. Free models are
//! often busy, so several are tried before there is no answer; OpenRouter's own choice among them is the last.

use crate::backend::openrouter::{Task, ask::Chosen, catalog::Model, refused::Refused, upstream::Code};

/// Models that are tried one after the other.
const MOST: usize = 4;
/// OpenRouter's own choice.
const ROUTER: &str = "openrouter/free";

/// What a model has to be able to do.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// What it is to read.
    pub modalities: &'a [&'static str],
    /// It has to keep to a schema.
    pub schema: bool,
}

/// The model that is asked first, and those after it. What the caller names comes first, if it costs nothing.
pub async fn free(
    task: &Task,
    named: impl Iterator<Item = &String>,
    needs: Needs<'_>,
) -> Result<(Chosen, Vec<String>), Refused> {
    let mut order: Vec<Chosen> = Vec::new();
    for name in named {
        let chosen = task.choose(Some(name)).await?;
        if !chosen.model.as_ref().is_some_and(|model| model.pricing.is_free()) {
            let why = format!("{name:?} is not free; leave it out, or leave out route");
            return Err(Refused::input(why));
        }
        order.push(chosen);
    }
    let models = task.work.catalog.get().await;
    let mut others: Vec<_> =
        models.models.iter().filter(|model| needs.are_met_by(model) && task.is_allowed(model)).collect();
    // What is equal stays in the order of use.
    let score = |model: &Model| (task.work.lessons.of(&model.id).health.score() * 50.0).round() as i64;
    others.sort_by_key(|model| std::cmp::Reverse(score(model)));
    for model in others {
        if order.len() + 1 >= MOST || order.iter().any(|chosen| chosen.id == model.id) {
            continue;
        }
        order.push(Chosen { id: model.id.clone(), model: Some(model.clone()), models: models.clone() });
    }
    if let Ok(router) = task.choose(Some(ROUTER)).await
        && order.iter().all(|chosen| chosen.id != router.id)
    {
        order.push(router);
    }
    let mut order = order.into_iter();
    let first = order.next().ok_or_else(|| {
        Refused::new(Code::ModelNotAllowed, "no free model may be used here for this; leave out route")
    })?;
    Ok((first, order.map(|chosen| chosen.id).collect()))
}

impl Needs<'_> {
    fn are_met_by(&self, model: &Model) -> bool {
        let knows = |name: &str| model.supported_parameters.iter().any(|one| one == name);
        model.pricing.is_free()
            && model.alias_of.is_none()
            && !model.id.starts_with("openrouter/")
            && model.output_modalities.iter().any(|one| one == "text")
            && self.modalities.iter().all(|one| model.reads(one) == Some(true))
            && (!self.schema || knows("structured_outputs") || knows("response_format"))
    }
}
