//! Arrays.

use serde_json::{Map, Value};

use crate::constraint::json_schema::{Compiler, Use, keywords};
use crate::constraint::machine::StateId;
use crate::error::Result;

impl<'a> Compiler<'a> {
    /// Arrays as the keywords of `map` say.
    pub(super) fn array(
        &mut self,
        start: StateId,
        end: StateId,
        map: &'a Map<String, Value>,
        used: &Use<'a>,
    ) -> Result<()> {
        let least = keywords::count(map, "minItems").unwrap_or(0);
        let most = keywords::count(map, "maxItems");
        let prefix: &[Value] = map.get("prefixItems").and_then(Value::as_array).map_or(&[], Vec::as_slice);
        // So many items have states of their own; more of them go in a circle.
        let unrolled = most.unwrap_or(least.max(prefix.len() as u64));
        self.builder.check_room(unrolled.saturating_mul(3))?;
        let mut rules = Vec::with_capacity(prefix.len());
        for (index, schema) in prefix.iter().enumerate() {
            rules.push(self.inner_rule(schema, used.place.key("prefixItems").index(index)));
        }
        let others = match map.get("items") {
            Some(schema) => self.inner_rule(schema, used.place.key("items")),
            None => self.any_rule(),
        };

        let mut before = self.builder.text(start, b"[");
        let close = |this: &mut Self, from: StateId| this.builder.edge(from, b']', b']', end);
        for index in 0..unrolled {
            if index >= least {
                close(self, before);
            }
            let item = if index == 0 { before } else { self.next_item(before) };
            let behind = self.builder.state();
            let rule = usize::try_from(index).ok().and_then(|index| rules.get(index)).copied().unwrap_or(others);
            self.builder.call(item, rule, behind);
            before = behind;
        }
        if unrolled >= least {
            close(self, before);
        }
        if most.is_none() {
            let behind = self.builder.state();
            let first = if unrolled == 0 { before } else { self.next_item(before) };
            self.builder.call(first, others, behind);
            close(self, behind);
            let next = self.next_item(behind);
            self.builder.call(next, others, behind);
        }
        Ok(())
    }

    /// The place behind a comma.
    fn next_item(&mut self, from: StateId) -> StateId {
        let to = self.builder.state();
        self.mark(from, b',', to);
        to
    }
}
