//! `object` in a rule about a system: its facts, with an eye on what is absent and what is not whole.
//!
//! In plain CEL `has(object.sockets)` is false when the sockets could not be collected, and "no file of this kind" is true
//! of half a list. Both would be passes that nobody evaluated, so the root object and the maps by path are values of
//! their own:
//!
//! * asking for an absent fact is an error, also inside `has()`;
//! * asking a map by path for a path that could not be seen is an error, also with `in`;
//! * asking for a fact that is not whole is remembered: the judge lets neither a pass nor "not applicable" rest on it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator, Sizer};
use cel::common::types::{CelInt, CelString, MAP_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use serde_json::Value as Json;

use super::tree::{Map, Node};
use super::value::{self, Owned};
use crate::model::reason::Reason;
use crate::native::facts::Missing;

/// The facts that a rule may name: the fields of `SystemFacts`, without `missing`.
pub(super) const FACTS: &[&str] = &[
    "collector",
    "configs",
    "files",
    "groups",
    "image",
    "mounts",
    "os",
    "packages",
    "passwords",
    "processes",
    "sockets",
    "specialFiles",
    "sysctls",
    "unreadable",
    "unreadableConfigs",
    "unreadableFiles",
    "users",
];

/// Lists that are whole only if the list of what could not be seen is there and empty.
const WHOLE_UNLESS: &[(&str, &str)] = &[("specialFiles", "unreadable")];

/// Maps by path, and the list of paths that could not be seen.
const BY_PATH: &[(&str, &str)] = &[("configs", "unreadableConfigs"), ("files", "unreadableFiles")];

/// Names of functions that no expression can call: they mark the errors made here.
pub(super) const ABSENT: &str = "@absent";
pub(super) const UNSEEN: &str = "@unseen";

/// What a rule asked for that is not whole.
pub(super) type Partial = Arc<Mutex<BTreeMap<String, (Reason, String)>>>;

/// The root object of a system's facts.
#[derive(Clone, Debug)]
pub(super) struct FactsObject(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    fields: BTreeMap<String, Owned>,
    not_whole: BTreeMap<String, (Reason, String)>,
    partial: Partial,
}

impl FactsObject {
    /// The object for these facts. What is not whole and asked for is noted in `partial`.
    pub(super) fn new(
        facts: &serde_json::Map<String, Json>,
        missing: &BTreeMap<String, Missing>,
        partial: &Partial,
    ) -> Self {
        let mut fields = BTreeMap::new();
        let mut not_whole: BTreeMap<String, (Reason, String)> = BTreeMap::new();
        for (name, fact) in facts.iter().filter(|(name, _)| FACTS.contains(&name.as_str())) {
            if let Some(why) = missing.get(name) {
                not_whole.insert(name.clone(), (why.reason, why.detail.clone()));
            }
            let unseen_fact = BY_PATH.iter().find(|(map, _)| map == name).map(|(_, unseen)| *unseen);
            let field: Owned = match unseen_fact {
                Some(unseen_fact) => Box::new(PathMap {
                    fact: name.clone(),
                    map: Node::of(fact),
                    unseen: facts.get(unseen_fact).and_then(strings).map(Arc::new),
                    unseen_fact,
                    partial: Arc::clone(partial),
                }),
                None => value::of_json(fact),
            };
            fields.insert(name.clone(), field);
        }
        for (list, unseen_fact) in WHOLE_UNLESS {
            match facts.get(*unseen_fact).and_then(strings) {
                Some(unseen) if unseen.is_empty() => {}
                Some(unseen) => {
                    not_whole.insert((*list).to_owned(), (Reason::UnreadablePaths, sample(&unseen)));
                }
                None => {
                    not_whole.insert((*list).to_owned(), unknown_extent(unseen_fact));
                }
            }
        }
        Self(Arc::new(Facts { fields, not_whole, partial: Arc::clone(partial) }))
    }
}

/// The strings in a JSON list; `None` when it is something else.
fn strings(json: &Json) -> Option<Vec<String>> {
    json.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

fn unknown_extent(unseen_fact: &str) -> (Reason, String) {
    (Reason::FactMissing, format!("the facts do not say in `{unseen_fact}` what could not be seen"))
}

/// The first few of many paths.
fn sample(paths: &[String]) -> String {
    let shown = paths.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    match paths.len().saturating_sub(3) {
        0 => format!("could not look into {shown}"),
        more => format!("could not look into {shown} and {more} more"),
    }
}

fn note(partial: &Partial, fact: &str, why: &(Reason, String)) {
    // A poisoned lock only means that another thread panicked while it added an entry; the entries are still true.
    partial.lock().unwrap_or_else(PoisonError::into_inner).entry(fact.to_owned()).or_insert_with(|| why.clone());
}

impl Indexer for FactsObject {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = index.downcast_ref::<CelString>().map(CelString::inner).ok_or_else(|| {
            ExecutionError::UnexpectedType { got: index.get_type().name().to_owned(), want: "string".to_owned() }
        })?;
        let field = self.0.fields.get(name).ok_or_else(|| ExecutionError::function_error(ABSENT, name))?;
        if let Some(why) = self.0.not_whole.get(name) {
            note(&self.0.partial, name, why);
        }
        Ok(CowVal::Borrowed(field.as_ref()))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(|field| value::detached(field.as_ref()))
    }
}

/// A map by absolute path that knows which paths it can't speak of.
#[derive(Clone, Debug)]
pub(super) struct PathMap {
    fact: String,
    map: Node,
    unseen: Option<Arc<Vec<String>>>,
    unseen_fact: &'static str,
    partial: Partial,
}

impl PathMap {
    /// The map; nothing where the facts hold something else.
    fn entries(&self) -> Option<&Map> {
        match &self.map {
            Node::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The entry, or nothing where it is known that there is none.
    fn find<'b>(&'b self, index: &dyn Val) -> Result<Option<&'b (dyn Val + 'static)>, ExecutionError> {
        let path = index.downcast_ref::<CelString>().map(CelString::inner).ok_or_else(|| {
            ExecutionError::UnexpectedType { got: index.get_type().name().to_owned(), want: "string".to_owned() }
        })?;
        if let Some(found) = self.entries().and_then(|map| map.find(path)) {
            return Ok(Some(found.value()));
        }
        let Some(unseen) = &self.unseen else {
            return Err(ExecutionError::function_error(
                UNSEEN,
                format!("{path}, as `{}` is missing", self.unseen_fact),
            ));
        };
        let covers = |folder: &String| {
            path.strip_prefix(folder.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder.ends_with('/'))
        };
        match unseen.iter().find(|folder| covers(folder)) {
            Some(_) => Err(ExecutionError::function_error(UNSEEN, path)),
            None => Ok(None),
        }
    }

    fn note_walk(&self) {
        match &self.unseen {
            Some(unseen) if unseen.is_empty() => {}
            Some(unseen) => note(&self.partial, &self.fact, &(Reason::UnreadablePaths, sample(unseen))),
            None => note(&self.partial, &self.fact, &unknown_extent(self.unseen_fact)),
        }
    }
}

impl Indexer for PathMap {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match self.find(index)? {
            Some(found) => Ok(CowVal::Borrowed(found)),
            None => Err(ExecutionError::no_such_key(index.downcast_ref::<CelString>().map_or("", CelString::inner))),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(|found| value::detached(found.as_ref()))
    }
}

impl Container for PathMap {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        self.find(value).map(|found| found.is_some())
    }
}

impl Iterable for PathMap {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        self.note_walk();
        match self.entries() {
            Some(map) => map.iter(),
            None => Box::new(Nothing),
        }
    }
}

impl Sizer for PathMap {
    fn size(&self) -> CelInt {
        self.note_walk();
        self.entries().map_or(CelInt::from(0), Sizer::size)
    }
}

struct Nothing;

impl<'b, 'v> Iterator<'b, 'v> for Nothing {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        None
    }
}

/// Stands for a value that is absent as a whole: asking it for anything is an error that names it.
#[derive(Clone, Debug)]
pub(super) struct Absent(pub(super) ExecutionError);

impl Indexer for Absent {
    fn get<'b, 'v>(&'b self, _: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Err(self.0.clone())
    }

    fn steal<'v>(self: Box<Self>, _: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Err(self.0)
    }
}

/// Lets through what can be compared. A map that knows what it can't speak of is neither equal to another nor different
/// from it, and comparing can't say so.
pub(super) fn comparable(value: &dyn Val) -> Result<(), ExecutionError> {
    if let Some(Absent(error)) = value.downcast_ref::<Absent>() {
        return Err(error.clone());
    }
    if value.downcast_ref::<PathMap>().is_some() || value.downcast_ref::<FactsObject>().is_some() {
        return Err(ExecutionError::function_error("_==_", "facts by name or path can only be compared one by one"));
    }
    Ok(())
}

macro_rules! value_type {
    ($name:ty, $($extra:tt)*) => {
        impl Val for $name {
            fn get_type(&self) -> &Type {
                &MAP_TYPE
            }
            fn cel_type() -> &'static Type {
                &MAP_TYPE
            }
            fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }
            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
            where
                Self: 'v,
            {
                Box::new(self.clone())
            }
            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
            $($extra)*
        }
        impl StaticVal for $name {}
    };
}

value_type!(FactsObject,);
value_type!(Absent,);
value_type! {PathMap,
    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }
    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }
    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }
}
