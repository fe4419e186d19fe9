//! `service-splitter`: shares of the requests of a service.

use postern_names::ServiceName;
use postern_traffic::ServiceSettings;
use postern_traffic::settings::{Percent, Split};
use serde_json::{Value, json};

use super::super::NotCarried;
use super::reader::Reader;

pub(super) fn read(own: &ServiceName, reader: &mut Reader<'_>) -> Result<Vec<Split>, NotCarried> {
    let splits = reader.objects("Splits")?;
    if splits.is_empty() {
        return Err(NotCarried("Splits is empty: give shares that add up to 100, or delete the entry".into()));
    }
    splits.into_iter().map(|mut split| one(own, &mut split).and_then(|read| split.finish().map(|()| read))).collect()
}

fn one(own: &ServiceName, split: &mut Reader<'_>) -> Result<Split, NotCarried> {
    split.refuse_scopes()?;
    let cure = "change headers in a route of service-router";
    split.refuse("RequestHeaders", cure)?;
    split.refuse("ResponseHeaders", cure)?;
    let place = split.place_of("Weight");
    let weight = Percent::try_from(split.float("Weight")?).map_err(|error| NotCarried(format!("{place}: {error}")))?;
    Ok(Split { weight, service: other_service(own, split, "Service")?, subset: subset(split, "ServiceSubset")? })
}

/// A service by its name, none where it is the own one or not said.
pub(super) fn other_service(own: &ServiceName, reader: &mut Reader<'_>, field: &str) -> Result<Option<ServiceName>, NotCarried> {
    let place = reader.place_of(field);
    match reader.text(field)? {
        "" => Ok(None),
        name => {
            let service: ServiceName = name.parse().map_err(|error| NotCarried(format!("{place}: {error}")))?;
            Ok(Some(service).filter(|service| service != own))
        }
    }
}

pub(super) fn subset(reader: &mut Reader<'_>, field: &str) -> Result<Option<String>, NotCarried> {
    Ok(Some(reader.text(field)?).filter(|subset| !subset.is_empty()).map(ToOwned::to_owned))
}

pub(super) fn write(settings: &ServiceSettings) -> Value {
    let one = |split: &Split| {
        let mut written = json!({ "Weight": split.weight });
        put_target(&mut written, split.service.as_ref(), split.subset.as_ref());
        written
    };
    settings.split.iter().map(one).collect()
}

pub(super) fn put_target(written: &mut Value, service: Option<&ServiceName>, subset: Option<&String>) {
    if let Some(service) = service {
        written["Service"] = service.as_str().into();
    }
    if let Some(subset) = subset {
        written["ServiceSubset"] = subset.as_str().into();
    }
}
