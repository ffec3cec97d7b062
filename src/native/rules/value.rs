//! JSON as CEL values, and the size of a value.

use std::collections::HashMap;

use cel::ExecutionError;
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional, CelString, CelType, CelUInt,
};
use cel::common::value::Val;

use super::object::{ABSENT, Absent, FactsObject, PathMap};

/// A value that borrows nothing.
pub(super) type Owned = Box<dyn Val>;

/// The CEL value of a JSON value. Whole numbers become `int` (`uint` beyond its range), as the API server does it.
pub(super) fn of_json(json: &serde_json::Value) -> Owned {
    match json {
        serde_json::Value::Null => Box::new(CelNull),
        serde_json::Value::Bool(b) => Box::new(CelBool::from(*b)),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Box::new(CelInt::from(i)),
            (None, Some(u)) => Box::new(CelUInt::from(u)),
            (None, None) => Box::new(CelDouble::from(n.as_f64().unwrap_or(f64::NAN))),
        },
        serde_json::Value::String(s) => text(s),
        serde_json::Value::Array(items) => Box::new(CelList::from(items.iter().map(of_json).collect::<Vec<_>>())),
        serde_json::Value::Object(map) => Box::new(CelMap::from(
            map.iter().map(|(k, v)| (CelMapKey::from(k.clone()), of_json(v))).collect::<HashMap<_, _>>(),
        )),
    }
}

/// A string that borrows nothing.
pub(super) fn text(s: &str) -> Owned {
    Box::new(CelString::from(s.to_owned()))
}

/// A copy that borrows nothing, so that it outlives the evaluation that made it.
pub(super) fn detached(value: &dyn Val) -> Owned {
    if let Some(string) = value.downcast_ref::<CelString>() {
        return text(string.inner());
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        return Box::new(CelList::from(list.iter().map(|item| detached(item.as_ref())).collect::<Vec<_>>()));
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        let entries = map.iter().map(|(k, v)| (k.clone().into_static(), detached(v.as_ref())));
        return Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()));
    }
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        return Box::new(match optional.inner() {
            Some(inner) => CelOptional::of(detached(inner)),
            None => CelOptional::none(),
        });
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        return Box::new(CelBytes::from(bytes.inner().to_vec()));
    }
    macro_rules! copied {
        ($($type:ty),+) => {
            $(if let Some(found) = value.downcast_ref::<$type>() {
                return Box::new(found.clone());
            })+
        };
    }
    copied!(CelBool, CelInt, CelUInt, CelDouble, CelNull, CelType, FactsObject, PathMap, Absent);
    // There is no other type; were there one, asking it for anything is an error.
    Box::new(Absent(ExecutionError::function_error(ABSENT, value.get_type().name())))
}

/// How many steps it costs to copy or to walk this value; counting stops at `cap`.
pub(super) fn weight(value: &dyn Val, cap: u64) -> u64 {
    if let Some(string) = value.downcast_ref::<CelString>() {
        return 1 + string.inner().len() as u64 / 64;
    }
    let mut sum = 1;
    if let Some(list) = value.downcast_ref::<CelList>() {
        for item in list.iter() {
            if sum > cap {
                break;
            }
            sum += weight(item.as_ref(), cap);
        }
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        for item in map.values() {
            if sum > cap {
                break;
            }
            sum += weight(item.as_ref(), cap);
        }
    }
    sum
}
