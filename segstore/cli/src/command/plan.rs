//! `segctl plan`.

use segstore::control::message::Verdict;
use segstore::{CreateOptions, Judged};

use super::Context;
use crate::arguments::Plan;
use crate::exit::Failure;
use crate::output::{json, table};

pub(crate) fn run(context: &Context, plan: &Plan) -> Result<(), Failure> {
    if plan.capacity.is_none() && plan.placing.is_said() {
        let text = "--require, --prefer and --spread are of one that is not made so far: say its --capacity too";
        return Err(Failure::Usage(text.into()));
    }
    let make = plan
        .capacity
        .map(|capacity| plan.placing.of(CreateOptions::new(capacity).replicas(plan.replicas.unwrap_or(1))));
    let judged = context.session()?.plan(&plan.name, make.as_ref())?;
    if context.json {
        let told =
            |node: &Judged| serde_json::json!({ "node": node.node_name, "verdict": node.verdict, "why": node.why });
        json(&judged.iter().map(told).collect::<Vec<_>>());
        return Ok(());
    }
    let row = |node: &Judged| {
        let verdict = match node.verdict {
            Verdict::Keeps => "keeps one",
            Verdict::Chosen => "gets one",
            Verdict::Fits => "would do",
            Verdict::Unfit => "no",
        };
        vec![node.node_name.clone(), verdict.to_owned(), node.why.clone()]
    };
    table::print(&["node", "replica", "why"], judged.iter().map(row).collect(), "There are no nodes.");
    Ok(())
}
