//! Type inference by unification (Hindley–Milner without polymorphism: a function is settled when its definition ends).
//! Invariant: afterwards every expression and local has a type; what nothing decides is an integer.

use super::{Expr, Kind, Program, refuse};
use crate::ast::Refusal;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Int,
    Float,
    Bool,
}

impl Type {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
        }
    }
}

/// The types of a whole program.
pub(super) struct Typed {
    /// Parameters and result of each function.
    pub(super) signatures: Vec<(Vec<Type>, Type)>,
    /// The locals of each function, parameters first.
    pub(super) locals: Vec<Vec<Type>>,
    /// Each expression by its number.
    pub(super) expressions: Vec<Type>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Same(usize),
    Known(Type),
    /// An integer or a float.
    Number,
    Any,
}

struct Inference {
    /// The expressions' slots first, by number; then those of locals and results.
    slots: Vec<Slot>,
    /// Parameters and result of each function, as slots.
    signatures: Vec<(Vec<usize>, usize)>,
    locals: Vec<usize>,
}

pub(super) fn infer(program: &Program) -> Result<Typed, Refusal> {
    let mut inference =
        Inference { slots: vec![Slot::Any; program.expressions], signatures: Vec::new(), locals: Vec::new() };
    let mut locals = Vec::new();
    for function in &program.functions {
        inference.locals = function.locals.iter().map(|_| inference.fresh(Slot::Any)).collect();
        let result = inference.fresh(Slot::Any);
        inference.signatures.push((inference.locals[..function.parameters].to_vec(), result));
        inference.expression(&function.body)?;
        inference.unify(result, &function.body)?;
        locals.push(std::mem::take(&mut inference.locals));
    }
    let settled = |slot: &usize| inference.settled(*slot);
    let expressions: Vec<usize> = (0..program.expressions).collect();
    Ok(Typed {
        signatures: inference
            .signatures
            .iter()
            .map(|(parameters, result)| (parameters.iter().map(settled).collect(), settled(result)))
            .collect(),
        locals: locals.iter().map(|all| all.iter().map(settled).collect()).collect(),
        expressions: expressions.iter().map(settled).collect(),
    })
}

impl Inference {
    fn fresh(&mut self, slot: Slot) -> usize {
        self.slots.push(slot);
        self.slots.len() - 1
    }

    fn root(&self, mut slot: usize) -> usize {
        while let Slot::Same(other) = self.slots[slot] {
            slot = other;
        }
        slot
    }

    fn settled(&self, slot: usize) -> Type {
        match self.slots[self.root(slot)] {
            Slot::Known(known) => known,
            _ => Type::Int,
        }
    }

    /// Makes the type of `expression` the same as `wanted`.
    fn unify(&mut self, wanted: usize, expression: &Expr) -> Result<(), Refusal> {
        let (wanted, found) = (self.root(wanted), self.root(expression.id));
        if wanted == found {
            return Ok(());
        }
        let both = match (self.slots[wanted], self.slots[found]) {
            (Slot::Any, other)
            | (other, Slot::Any)
            | (Slot::Number, other @ (Slot::Number | Slot::Known(Type::Int | Type::Float)))
            | (other @ Slot::Known(Type::Int | Type::Float), Slot::Number) => other,
            (one, other) if one == other => one,
            (one, other) => {
                let message = format!("expected {}, found {}", describe(one), describe(other));
                return Err(refuse(true, expression.line, expression.column, message));
            }
        };
        self.slots[found] = Slot::Same(wanted);
        self.slots[wanted] = both;
        Ok(())
    }

    fn require(&mut self, slot: Slot, expression: &Expr) -> Result<usize, Refusal> {
        let wanted = self.fresh(slot);
        self.unify(wanted, expression)?;
        Ok(wanted)
    }

    /// Says that the type of `expression`, not looked at before, is `slot`.
    fn is(&mut self, expression: &Expr, slot: usize) {
        self.slots[expression.id] = Slot::Same(slot);
    }

    fn expression(&mut self, expression: &Expr) -> Result<(), Refusal> {
        match &expression.kind {
            Kind::Int(_) => self.slots[expression.id] = Slot::Known(Type::Int),
            Kind::Float(_) => self.slots[expression.id] = Slot::Known(Type::Float),
            Kind::Bool(_) => self.slots[expression.id] = Slot::Known(Type::Bool),
            Kind::Local(local) => self.is(expression, self.locals[*local]),
            Kind::Unary(operator, inner) => {
                self.expression(inner)?;
                let wanted = if *operator == '-' { Slot::Number } else { Slot::Known(Type::Bool) };
                let slot = self.require(wanted, inner)?;
                self.is(expression, slot);
            }
            Kind::Binary(operator, left, right) => {
                self.expression(left)?;
                self.expression(right)?;
                let wanted = match *operator {
                    "&&" | "||" => Slot::Known(Type::Bool),
                    "==" | "!=" => Slot::Any,
                    "/" => Slot::Known(Type::Float),
                    _ => Slot::Number,
                };
                let slot = self.require(wanted, left)?;
                self.unify(slot, right)?;
                if matches!(*operator, "+" | "-" | "*" | "/") {
                    self.is(expression, slot);
                } else {
                    self.slots[expression.id] = Slot::Known(Type::Bool);
                }
            }
            Kind::If(condition, then, otherwise) => {
                self.expression(condition)?;
                self.require(Slot::Known(Type::Bool), condition)?;
                self.expression(then)?;
                self.expression(otherwise)?;
                self.unify(then.id, otherwise)?;
                self.is(expression, then.id);
            }
            Kind::Let(local, value, body) => {
                self.expression(value)?;
                self.unify(self.locals[*local], value)?;
                self.expression(body)?;
                self.is(expression, body.id);
            }
            Kind::Call(callee, arguments) => {
                for (index, argument) in arguments.iter().enumerate() {
                    self.expression(argument)?;
                    self.unify(self.signatures[*callee].0[index], argument)?;
                }
                self.is(expression, self.signatures[*callee].1);
            }
        }
        Ok(())
    }
}

const fn describe(slot: Slot) -> &'static str {
    match slot {
        Slot::Known(known) => known.name(),
        Slot::Number => "a number",
        Slot::Same(_) | Slot::Any => "anything",
    }
}
