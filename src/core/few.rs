//! Lists that are empty for nearly every guard.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A list that mostly is empty: one word then, and no allocation, where a `Vec` takes three words.
#[derive(Clone, PartialEq, Eq)]
pub struct Few<T>(Option<Box<Held<T>>>);

/// The items of a list that is not empty.
#[derive(Clone, PartialEq, Eq)]
struct Held<T>(Vec<T>);

impl<T> Few<T> {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds an item at the end.
    pub fn push(&mut self, item: T) {
        match &mut self.0 {
            Some(held) => held.0.push(item),
            None => *self = vec![item].into(),
        }
    }

    /// Takes all items away.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_deref().map_or(&[], |held| &held.0)
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut items: Vec<T>) -> Self {
        items.shrink_to_fit();
        // Empty lists are one, or two of them would not be equal.
        Self((!items.is_empty()).then(|| Box::new(Held(items))))
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        items.into_iter().collect::<Vec<T>>().into()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Serialize> Serialize for Few<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

/// That of any list.
impl<T: JsonSchema> JsonSchema for Few<T> {
    fn inline_schema() -> bool {
        Vec::<T>::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        Vec::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<T>::json_schema(generator)
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_takes_one_word_however_it_came_about() {
        assert_eq!(size_of::<Few<String>>(), size_of::<usize>());
        assert_eq!(Few::<u8>::from(Vec::with_capacity(7)), Few::default());
        assert_eq!(Few::<u8>::from_iter([]), Few::default());
    }

    #[test]
    fn it_holds_what_it_is_given_in_its_order() {
        let mut few = Few::from_iter([2]);
        few.push(1);
        let mut other = Few::default();
        other.push(2);
        assert_eq!((&*few, &*other), ([2, 1].as_slice(), [2].as_slice()));
    }
}
