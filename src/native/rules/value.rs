//! Values that outlive an evaluation, and what it costs to copy one.

use std::collections::HashMap;

use cel::ExecutionError;
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelNull, CelOptional, CelString, CelType, CelUInt,
};
use cel::common::value::Val;

use super::object::{ABSENT, Absent, FactsObject, PathMap};
use super::tree::{List, Map, Node};

/// A value that borrows nothing.
pub(super) type Owned = Box<dyn Val>;

/// The CEL value of a JSON value.
pub(super) fn of_json(json: &serde_json::Value) -> Owned {
    detached(Node::of(json).value())
}

/// A copy that borrows nothing, so that it outlives the evaluation that made it. Parts of a tree stay shared.
pub(super) fn detached(value: &dyn Val) -> Owned {
    if let Some(list) = value.downcast_ref::<CelList>() {
        return Box::new(CelList::from(list.iter().map(|item| detached(item.as_ref())).collect::<Vec<_>>()));
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        let entries = map.iter().map(|(k, v)| (k.clone().into_static(), detached(v.as_ref())));
        return Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()));
    }
    if let Some(string) = value.downcast_ref::<CelString>() {
        return Box::new(string.clone().into_static());
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        return Box::new(CelBytes::from(bytes.inner().to_vec()));
    }
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        return Box::new(match optional.inner() {
            Some(inner) => CelOptional::of(detached(inner)),
            None => CelOptional::none(),
        });
    }
    macro_rules! copied {
        ($($type:ty),+) => {
            $(if let Some(found) = value.downcast_ref::<$type>() {
                return Box::new(found.clone());
            })+
        };
    }
    copied!(List, Map, CelBool, CelInt, CelUInt, CelDouble, CelNull, CelType, FactsObject, PathMap, Absent);
    // There is no other type; were there one, asking it for anything is an error.
    Box::new(Absent(ExecutionError::function_error(ABSENT, value.get_type().name())))
}

/// Whether `native` would change it.
pub(super) fn holds_items(value: &dyn Val) -> bool {
    value.as_iterable().is_some()
}

/// The same value in the interpreter's own lists and maps throughout, which compare with each other from both sides.
pub(super) fn native(value: &dyn Val) -> Owned {
    if let Some(list) = value.downcast_ref::<List>() {
        return Box::new(CelList::from(list.items().iter().map(|item| native(item.value())).collect::<Vec<_>>()));
    }
    if let Some(map) = value.downcast_ref::<Map>() {
        let entries = map.entries().iter().map(|(k, v)| (k.inner().to_owned().into(), native(v.value())));
        return Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()));
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        return Box::new(CelList::from(list.iter().map(|item| native(item.as_ref())).collect::<Vec<_>>()));
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        let entries = map.iter().map(|(k, v)| (k.clone().into_static(), native(v.as_ref())));
        return Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()));
    }
    detached(value)
}

/// How much of a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// What is copied with it, or walked by a loop or a function: not what is below the items of a tree.
    Copied,
    /// All of it.
    Whole,
}

/// How many steps a value of this extent is; counting stops at `cap`.
pub(super) fn weight(value: &dyn Val, extent: Extent, cap: u64) -> u64 {
    fn sum<'a>(items: impl Iterator<Item = &'a dyn Val>, extent: Extent, cap: u64) -> u64 {
        let mut sum = 1;
        for item in items {
            if sum > cap {
                break;
            }
            sum += match item.downcast_ref::<List>().is_some() || item.downcast_ref::<Map>().is_some() {
                true if extent == Extent::Copied => 1,
                _ => weight(item, extent, cap),
            };
        }
        sum
    }
    if let Some(string) = value.downcast_ref::<CelString>() {
        1 + string.inner().len() as u64 / 64
    } else if let Some(list) = value.downcast_ref::<List>() {
        sum(list.items().iter().map(|item| item.value() as &dyn Val), extent, cap)
    } else if let Some(map) = value.downcast_ref::<Map>() {
        sum(map.entries().iter().map(|(_, item)| item.value() as &dyn Val), extent, cap)
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        sum(list.iter().map(AsRef::as_ref), extent, cap)
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        sum(map.values().map(AsRef::as_ref), extent, cap)
    } else {
        1
    }
}
