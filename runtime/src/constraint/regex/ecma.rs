//! Patterns of JSON schemas: ECMA-262 where it differs from Rust's regular expressions.

use regex_syntax::ast::{
    AssertionKind, Ast, ClassAscii, ClassAsciiKind, ClassBracketed, ClassPerl, ClassPerlKind, ClassSet, ClassSetItem,
    ClassSetRange, ClassSetUnion, Flag, Flags, FlagsItem, FlagsItemKind, Group, GroupKind, HexLiteralKind, Literal,
    LiteralKind, Span,
};

use crate::error::{Error, Result};

/// The characters of `\s` in ECMA-262.
const SPACES: [(char, char); 10] = [
    ('\t', '\r'),
    (' ', ' '),
    ('\u{a0}', '\u{a0}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{2000}', '\u{200a}'),
    ('\u{2028}', '\u{2029}'),
    ('\u{202f}', '\u{202f}'),
    ('\u{205f}', '\u{205f}'),
    ('\u{3000}', '\u{3000}'),
    ('\u{feff}', '\u{feff}'),
];
/// The characters that `.` does not match in ECMA-262.
const LINE_ENDS: [(char, char); 3] = [('\n', '\n'), ('\r', '\r'), ('\u{2028}', '\u{2029}')];

/// Gives `\d`, `\w`, `\s`, `\b` and `.` their meaning in ECMA-262, and rejects syntax with another meaning there.
///
/// The parser's limit on nesting bounds the recursion.
pub(super) fn convert(tree: &mut Ast) -> Result<()> {
    match tree {
        Ast::Dot(span) => *tree = bracketed(**span, true, class_of(**span, &LINE_ENDS)),
        Ast::ClassPerl(class) => *tree = bracketed(class.span, false, perl(class)),
        Ast::ClassBracketed(class) => match &mut class.kind {
            ClassSet::Item(item) => set_item(item)?,
            ClassSet::BinaryOp(_) => return Err(unsupported("operators inside [ ]; escape &&, -- and ~~")),
        },
        Ast::Assertion(assertion) => match assertion.kind {
            AssertionKind::StartLine | AssertionKind::EndLine => {}
            AssertionKind::WordBoundary | AssertionKind::NotWordBoundary => {
                // ASCII word characters only.
                let span = assertion.span;
                let items = [FlagsItemKind::Negation, FlagsItemKind::Flag(Flag::Unicode)]
                    .map(|kind| FlagsItem { span, kind })
                    .to_vec();
                let kind = GroupKind::NonCapturing(Flags { span, items });
                *tree = Ast::group(Group { span, kind, ast: Box::new(Ast::assertion((**assertion).clone())) });
            }
            _ => return Err(unsupported("anchors other than ^, $, \\b and \\B; use one of these")),
        },
        Ast::Repetition(repetition) => convert(&mut repetition.ast)?,
        Ast::Group(group) => convert(&mut group.ast)?,
        Ast::Alternation(alternation) => alternation.asts.iter_mut().try_for_each(convert)?,
        Ast::Concat(concat) => concat.asts.iter_mut().try_for_each(convert)?,
        Ast::Empty(_) | Ast::Flags(_) | Ast::Literal(_) | Ast::ClassUnicode(_) => {}
    }
    Ok(())
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("the pattern uses syntax that is not supported here: {what}"))
}

fn set_item(item: &mut ClassSetItem) -> Result<()> {
    match item {
        ClassSetItem::Perl(class) => *item = perl(class),
        ClassSetItem::Union(union) => union.items.iter_mut().try_for_each(set_item)?,
        ClassSetItem::Bracketed(_) | ClassSetItem::Ascii(_) => return Err(unsupported("[ inside [ ]; write \\[")),
        ClassSetItem::Empty(_) | ClassSetItem::Literal(_) | ClassSetItem::Range(_) | ClassSetItem::Unicode(_) => {}
    }
    Ok(())
}

/// The characters of `\d`, `\w` or `\s`, or their complement.
fn perl(class: &ClassPerl) -> ClassSetItem {
    let span = class.span;
    let kind = match class.kind {
        ClassPerlKind::Digit => ClassAsciiKind::Digit,
        ClassPerlKind::Word => ClassAsciiKind::Word,
        ClassPerlKind::Space => {
            let kind = ClassSet::Item(class_of(span, &SPACES));
            return ClassSetItem::Bracketed(Box::new(ClassBracketed { span, negated: class.negated, kind }));
        }
    };
    ClassSetItem::Ascii(ClassAscii { span, kind, negated: class.negated })
}

fn class_of(span: Span, ranges: &[(char, char)]) -> ClassSetItem {
    let literal = |c| Literal { span, kind: LiteralKind::HexFixed(HexLiteralKind::UnicodeLong), c };
    let range = |&(start, end)| ClassSetItem::Range(ClassSetRange { span, start: literal(start), end: literal(end) });
    ClassSetItem::Union(ClassSetUnion { span, items: ranges.iter().map(range).collect() })
}

fn bracketed(span: Span, negated: bool, item: ClassSetItem) -> Ast {
    Ast::class_bracketed(ClassBracketed { span, negated, kind: ClassSet::Item(item) })
}
