//! Which connected sidecars would not understand what an apply says, and so would deny these pairs.

use std::collections::{BTreeMap, HashMap};

use postern_api::key::ResourceKey;
use postern_api::understanding::{missing, needs};
use postern_intentions::plan::Plan;
use postern_intentions::{Intention, PairKey, Party};

use crate::push::SidecarStatus;

/// «api-1 (version 0.1.0): web -> api needs jwt», one for each sidecar, with the first intention that it is about.
///
/// A sidecar is asked by what it told in its Hello. One that has already refused an intention is named too, unless the
/// apply makes it simpler.
pub(super) fn missing_on(plan: &Plan, wanted: &[Intention], sidecars: &[SidecarStatus]) -> Vec<String> {
    let mut found: BTreeMap<usize, String> = BTreeMap::new();
    let told_alike = told_alike(sidecars);
    for intention in plan.added.iter().chain(plan.changed.iter().map(|(_, after)| after)) {
        let needed = needs(intention);
        if needed.is_empty() {
            continue;
        }
        for (told, alike) in &told_alike {
            let missing = missing(&needed, told);
            let concerned = alike.iter().filter(|number| !missing.is_empty() && is_concerned(&sidecars[**number], intention));
            for number in concerned {
                found.entry(*number).or_insert_with(|| format!("{} needs {}", intention.pair(), missing.join(", ")));
            }
        }
    }
    refused_already(plan, wanted, sidecars, &mut found);
    let named = found.into_iter().map(|(number, why)| {
        let sidecar = &sidecars[number];
        format!("{} (version {}): {why}", sidecar.instance, sidecar.version)
    });
    named.collect()
}

/// Most sidecars tell the same: it is looked at once.
fn told_alike(sidecars: &[SidecarStatus]) -> HashMap<&[String], Vec<usize>> {
    let mut alike: HashMap<&[String], Vec<usize>> = HashMap::new();
    for (number, sidecar) in sidecars.iter().enumerate() {
        alike.entry(&sidecar.understands).or_default().push(number);
    }
    alike
}

fn is_concerned(sidecar: &SidecarStatus, intention: &Intention) -> bool {
    match &intention.destination {
        Party::Any => true,
        Party::Service(service) => *service == sidecar.service,
    }
}

fn refused_already(plan: &Plan, wanted: &[Intention], sidecars: &[SidecarStatus], found: &mut BTreeMap<usize, String>) {
    if sidecars.iter().all(|sidecar| sidecar.nacks.is_empty()) {
        return;
    }
    let wanted: HashMap<PairKey, &Intention> = wanted.iter().map(|intention| (intention.key(), intention)).collect();
    let becomes_simpler = |(before, after): &&(Intention, Intention)| !needs(after).is_superset(&needs(before));
    let simpler: Vec<PairKey> = plan.changed.iter().filter(becomes_simpler).map(|(_, after)| after.key()).collect();
    let added: Vec<PairKey> = plan.added.iter().map(Intention::key).collect();
    for (number, sidecar) in sidecars.iter().enumerate() {
        for (key, why) in &sidecar.nacks {
            let Ok(ResourceKey::Intention(pair)) = key.parse() else { continue };
            if let Some(intention) = wanted.get(&pair)
                && !simpler.contains(&pair)
                && !added.contains(&pair)
            {
                found.entry(number).or_insert_with(|| format!("{} was not understood: {why}", intention.pair()));
            }
        }
    }
}
