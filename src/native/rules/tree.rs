//! JSON as CEL values that are shared instead of copied.
//!
//! The interpreter copies each element of a list into the variable of a loop, and its own lists and maps copy all they
//! hold. Facts may be 200,000 files of a hostile target, so they are kept in a compact tree, of which a copy is one
//! count more. Equality with the interpreter's own lists and maps holds with the tree on the left; comparisons are
//! rewritten so that it never stands on the right of one (see `budget`).

use std::any::Any;
use std::sync::Arc;

use cel::common::traits::{Adder, Container, Indexer, Iterable, Iterator, Sizer};
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, LIST_TYPE, MAP_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{ExecutionError, Value};

/// Names of fields that come with every item of a long list: they are not copied for each.
const FREQUENT: &[&str] = &[
    "address",
    "arch",
    "capEff",
    "capabilities",
    "gid",
    "home",
    "loopback",
    "manager",
    "members",
    "mode",
    "name",
    "noNewPrivs",
    "options",
    "password",
    "path",
    "perm",
    "pid",
    "port",
    "protocol",
    "seccomp",
    "shell",
    "source",
    "symlink",
    "type",
    "uid",
    "unowned",
    "version",
];

/// A value in a tree.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Null,
    Bool(CelBool),
    Int(CelInt),
    Uint(CelUInt),
    Double(CelDouble),
    Text(CelString<'static>),
    List(List),
    Map(Map),
}

/// A list in a tree.
#[derive(Clone, Debug)]
pub(super) struct List(Arc<[Node]>);

/// A map with names for keys, in their order, in a tree.
#[derive(Clone, Debug)]
pub(super) struct Map(Arc<[(CelString<'static>, Node)]>);

impl Node {
    /// The tree of a JSON value. Whole numbers become `int` (`uint` beyond its range), as the API server does it.
    pub(super) fn of(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(b) => Self::Bool(CelBool::from(*b)),
            serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Self::Int(CelInt::from(i)),
                (None, Some(u)) => Self::Uint(CelUInt::from(u)),
                (None, None) => Self::Double(CelDouble::from(n.as_f64().unwrap_or(f64::NAN))),
            },
            serde_json::Value::String(s) => Self::Text(CelString::from(s.clone())),
            serde_json::Value::Array(items) => Self::List(List(items.iter().map(Self::of).collect())),
            serde_json::Value::Object(fields) => {
                let key = |name: &String| match FREQUENT.binary_search(&name.as_str()) {
                    Ok(found) => CelString::from(FREQUENT[found]),
                    Err(_) => CelString::from(name.clone()),
                };
                let mut entries: Vec<_> = fields.iter().map(|(name, value)| (key(name), Self::of(value))).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Self::Map(Map(entries.into()))
            }
        }
    }

    /// The value.
    pub(super) fn value(&self) -> &(dyn Val + 'static) {
        match self {
            Self::Null => &CelNull,
            Self::Bool(value) => value,
            Self::Int(value) => value,
            Self::Uint(value) => value,
            Self::Double(value) => value,
            Self::Text(value) => value,
            Self::List(value) => value,
            Self::Map(value) => value,
        }
    }
}

impl List {
    pub(super) fn items(&self) -> &[Node] {
        &self.0
    }
}

impl Map {
    pub(super) fn entries(&self) -> &[(CelString<'static>, Node)] {
        &self.0
    }

    /// The value under this name.
    pub(super) fn find(&self, name: &str) -> Option<&Node> {
        self.0.binary_search_by(|(key, _)| key.inner().cmp(name)).ok().map(|found| &self.0[found].1)
    }

    fn find_by<'b>(&'b self, key: &dyn Val) -> Result<Option<&'b Node>, ExecutionError> {
        match key.downcast_ref::<CelString>() {
            Some(name) => Ok(self.find(name.inner())),
            None => Err(unexpected(key, "string")),
        }
    }
}

fn unexpected(value: &dyn Val, want: &str) -> ExecutionError {
    ExecutionError::UnexpectedType { got: value.get_type().name().to_owned(), want: want.to_owned() }
}

impl Val for List {
    fn get_type(&self) -> &Type {
        &LIST_TYPE
    }
    fn cel_type() -> &'static Type {
        &LIST_TYPE
    }
    fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }
    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }
    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
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
    fn equals(&self, other: &dyn Val) -> bool {
        let same_length = other.as_sizer().is_some_and(|other| *other.size().inner() == self.0.len() as i64);
        let Some(others) = other.as_iterable().filter(|_| same_length && other.get_type() == &LIST_TYPE) else {
            return false;
        };
        let mut others = others.iter();
        self.0.iter().all(|item| others.next().is_some_and(|other| item.value().equals(other)))
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
}

impl StaticVal for List {}

impl Adder for List {
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let mut rhs = rhs.as_iterable().ok_or_else(|| unexpected(rhs, "list"))?.iter();
        let mut sum: Vec<Box<dyn Val + 'v>> = self.0.iter().map(|item| item.value().clone_as_boxed()).collect();
        while let Some(item) = rhs.next() {
            sum.push(item.clone_as_boxed());
        }
        Ok(CowVal::owned(CelList::from(sum)))
    }
}

impl Container for List {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.0.iter().any(|item| item.value().equals(value)))
    }
}

impl Indexer for List {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let (place, value) = if let Some(i) = index.downcast_ref::<CelInt>() {
            (usize::try_from(*i.inner()).ok(), Value::Int(*i.inner()))
        } else if let Some(u) = index.downcast_ref::<CelUInt>() {
            (usize::try_from(*u.inner()).ok(), Value::UInt(*u.inner()))
        } else {
            return Err(unexpected(index, "int"));
        };
        let item = place.and_then(|place| self.0.get(place)).ok_or(ExecutionError::IndexOutOfBounds(value))?;
        Ok(CowVal::Borrowed(item.value()))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(|item| super::value::detached(item.as_ref()))
    }
}

impl Iterable for List {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Values(self.0.iter().map(Node::value)))
    }
}

impl Sizer for List {
    fn size(&self) -> CelInt {
        CelInt::from(self.0.len() as i64)
    }
}

/// The interpreter's iterator over an ordinary one.
struct Values<I>(I);

impl<'b, 'v, I: std::iter::Iterator<Item = &'b (dyn Val + 'static)>> Iterator<'b, 'v> for Values<I> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|value| value as &(dyn Val + 'v))
    }
}

impl Val for Map {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }
    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }
    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }
    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
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
    fn equals(&self, other: &dyn Val) -> bool {
        let same_length = other.as_sizer().is_some_and(|other| *other.size().inner() == self.0.len() as i64);
        let Some(others) = other.as_indexer().filter(|_| same_length && other.get_type() == &MAP_TYPE) else {
            return false;
        };
        self.0.iter().all(|(name, item)| others.get(name).is_ok_and(|other| item.value().equals(other.as_ref())))
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
}

impl StaticVal for Map {}

impl Container for Map {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        self.find_by(value).map(|found| found.is_some())
    }
}

impl Indexer for Map {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match self.find_by(key)? {
            Some(found) => Ok(CowVal::Borrowed(found.value())),
            None => Err(ExecutionError::no_such_key(key.downcast_ref::<CelString>().map_or("", CelString::inner))),
        }
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(|found| super::value::detached(found.as_ref()))
    }
}

impl Iterable for Map {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Values(self.0.iter().map(|(name, _)| name as &(dyn Val + 'static))))
    }
}

impl Sizer for Map {
    fn size(&self) -> CelInt {
        CelInt::from(self.0.len() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_names_are_found() {
        assert!(FREQUENT.is_sorted());
    }
}
