//! Member by member: what it takes to conform to a protocol, and where the members of a type are.
//!
//! Instances of generic definitions get their members once; nothing here remembers answers.

use super::check::{Engine, Fuel, GROUND, Limit, Stop};
use super::explain::{Fault, Step};
use super::term::{Substitution, Term, TypeId, number};
use super::universe::Member;

impl Engine {
    /// Member by member: `found` against the protocol `expected`.
    pub(crate) fn structure(&mut self, found: TypeId, expected: TypeId) -> Result<(), Stop> {
        let (mut at, end) = self.members_of(found)?;
        let (wanted_start, wanted_end) = self.members_of(expected)?;
        for wanted_at in wanted_start..wanted_end {
            self.fuel.spend(1)?;
            let wanted = self.members[wanted_at as usize];
            // Both lists are sorted by name.
            while at < end && self.members[at as usize].name < wanted.name {
                at += 1;
            }
            let candidate = if at < end { Some(self.members[at as usize]) } else { None };
            match candidate.filter(|candidate| candidate.name == wanted.name) {
                Some(candidate) => self.member(candidate, wanted, found)?,
                // A callable is an object with the one member `__call__`.
                None if wanted.name == self.universe.call && matches!(self.interner.term(found), Term::Callable(_)) => {
                    let ty = self.bind_self(wanted.ty, found)?;
                    self.part(Step::Member(wanted.name), found, ty)?;
                }
                None if wanted.optional => {}
                None => return Err(Fault::Missing(wanted.name).into()),
            }
        }
        Ok(())
    }

    fn member(&mut self, found: Member, wanted: Member, this: TypeId) -> Result<(), Stop> {
        if found.optional && !wanted.optional {
            return Err(Fault::Optional(wanted.name).into());
        }
        if !wanted.readonly && found.readonly {
            return Err(Fault::ReadOnly(wanted.name).into());
        }
        // `Self` on both sides is the type whose conformance is asked.
        let found_ty = self.bind_self(found.ty, this)?;
        let wanted_ty = self.bind_self(wanted.ty, this)?;
        self.part(Step::Member(wanted.name), found_ty, wanted_ty)?;
        if !wanted.readonly {
            self.part(Step::Assignment(wanted.name), wanted_ty, found_ty)?;
        }
        Ok(())
    }

    /// The type of `found.__call__`, by which an object can stand for a callable.
    pub(crate) fn call_member(&mut self, found: TypeId) -> Result<Option<TypeId>, Limit> {
        let (start, end) = self.members_of(found)?;
        let call = self.universe.call;
        let member = self.members[start as usize..end as usize].iter().find(|member| member.name == call).copied();
        match member {
            Some(member) if !member.optional => self.bind_self(member.ty, found).map(Some),
            _ => Ok(None),
        }
    }

    /// One member of a definition against the member it replaces, for loading.
    pub(crate) fn overrides(&mut self, own: Member, inherited: Member, this: TypeId, fuel: u64) -> Result<(), Stop> {
        self.fuel = Fuel::new(fuel);
        self.leans_on = GROUND;
        let result = self.member(own, inherited, this);
        for pair in self.open.drain(..).chain(self.provisional.drain(..)) {
            self.memo.remove(&pair);
        }
        result
    }

    fn bind_self(&mut self, ty: TypeId, this: TypeId) -> Result<TypeId, Limit> {
        if !self.interner.has_self(ty) {
            return Ok(ty);
        }
        self.interner.substitute(ty, &Substitution { pairs: &[], this: Some(this) }, &mut self.fuel)
    }

    /// Where the members of a named type are, sorted by name; nothing for other types.
    fn members_of(&mut self, ty: TypeId) -> Result<(u32, u32), Limit> {
        let Term::Named(def, args) = self.interner.term(ty) else {
            return Ok((0, 0));
        };
        let (start, end) = self.universe.defs[def.0 as usize].members;
        if args.is_empty() {
            return Ok((start, end));
        }
        if let Some(&range) = self.instances.get(&ty) {
            return Ok(range);
        }
        let pairs = self.universe.pairs(*def, args);
        let mut instance = Vec::with_capacity((end - start) as usize);
        for at in start..end {
            let member = self.members[at as usize];
            let with = Substitution { pairs: &pairs, this: None };
            let ty = self.interner.substitute(member.ty, &with, &mut self.fuel)?;
            instance.push(Member { ty, ..member });
        }
        self.fuel.spend(instance.len())?;
        let range = (number(self.members.len()), number(self.members.len() + instance.len()));
        self.members.extend(instance);
        self.instances.insert(ty, range);
        Ok(range)
    }
}
