//! Arrays of a schema.

use serde_json::{Map, Value};

use crate::constraint::json_schema::compiler::{Compiler, Subschema};
use crate::constraint::json_schema::keywords;
use crate::constraint::machine::StateId;
use crate::error::Result;

impl<'a> Compiler<'a> {
    /// Adds the arrays that the keywords of `map` allow.
    pub(super) fn array(
        &mut self,
        start: StateId,
        end: StateId,
        map: &'a Map<String, Value>,
        subschema: &Subschema<'a>,
    ) -> Result<()> {
        let min = keywords::count(map, "minItems").unwrap_or(0);
        let max = keywords::count(map, "maxItems");
        let prefix: &[Value] = map.get("prefixItems").and_then(Value::as_array).map_or(&[], Vec::as_slice);
        // This many items have their own states; all further ones share a loop.
        let unrolled = max.unwrap_or(min.max(prefix.len() as u64));
        self.builder.check_room(unrolled.saturating_mul(3))?;
        let mut rules = Vec::with_capacity(prefix.len());
        for (index, schema) in prefix.iter().enumerate() {
            rules.push(self.rule_of_all_types(schema, subschema.pointer.keyword("prefixItems").index(index)));
        }
        let others = match map.get("items") {
            Some(schema) => self.rule_of_all_types(schema, subschema.pointer.keyword("items")),
            None => self.any_value(),
        };

        let mut before = self.builder.text(start, b"[");
        let close = |this: &mut Self, from: StateId| this.builder.edge(from, b']', b']', end);
        for index in 0..unrolled {
            if index >= min {
                close(self, before);
            }
            let item = if index == 0 { before } else { self.next_item(before) };
            let after = self.builder.state();
            let rule = usize::try_from(index).ok().and_then(|index| rules.get(index)).copied().unwrap_or(others);
            self.builder.call(item, rule, after);
            before = after;
        }
        if unrolled >= min {
            close(self, before);
        }
        if max.is_none() {
            let after = self.builder.state();
            let first = if unrolled == 0 { before } else { self.next_item(before) };
            self.builder.call(first, others, after);
            close(self, after);
            let next = self.next_item(after);
            self.builder.call(next, others, after);
        }
        Ok(())
    }

    /// The state after a comma.
    fn next_item(&mut self, from: StateId) -> StateId {
        let to = self.builder.state();
        self.separator(from, b',', to);
        to
    }
}
