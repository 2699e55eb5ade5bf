"""A server's nodes of the Machine Vision specification, by our table or the Foundation's own file.

Both give a client the same nodes (``tests/bridges/test_machine_vision.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from asyncua import Server, ua

from inspector.bridges.machine_vision import (
    EVENTS,
    METHODS,
    PARTS,
    SIMPLE,
    STATES,
    STRUCTURES,
    TRI_STATE,
    TYPES,
    URI,
    VISION_SYSTEM,
    Method,
    Types,
    parsed,
)
from inspector.errors import ConfigError

_O = ua.ObjectIds
_RULES: Final = {
    "mandatory": ua.NodeId(_O.ModellingRule_Mandatory),
    "optional": ua.NodeId(_O.ModellingRule_Optional),
}


class Nodes(Types):
    """Adds nodes to a server, of which ``space`` is this specification's namespace."""

    def __init__(self, server: Server, space: int) -> None:
        super().__init__(space)
        self._session = server.iserver.isession

    def add(
        self,
        node: ua.NodeId,
        name: str,
        parent: ua.NodeId,
        attributes: object,
        *,
        reference: int,
        node_class: ua.NodeClass,
        kind: ua.NodeId | None = None,
        rule: str = "",
        space: int | None = None,
    ) -> ua.NodeId:
        """Add one node; ``space`` is its name's namespace if that is not the specification's."""
        item = ua.AddNodesItem()
        item.RequestedNewNodeId = node
        item.BrowseName = ua.QualifiedName(name, self.space if space is None else space)
        item.ParentNodeId = parent
        item.ReferenceTypeId = ua.NodeId(reference)
        item.NodeClass = node_class
        item.TypeDefinition = kind or ua.NodeId()
        attributes.DisplayName = ua.LocalizedText(name)  # type: ignore[attr-defined]
        item.NodeAttributes = attributes
        self._session.iserver.node_mgt_service.add_nodes([item], self._session.user)[
            0
        ].StatusCode.check()
        if rule:
            self.refer(node, _O.HasModellingRule, _RULES[rule])
        return node

    def refer(self, source: ua.NodeId, reference: int, target: ua.NodeId) -> None:
        """Add one reference."""
        item = ua.AddReferencesItem()
        item.SourceNodeId = source
        item.ReferenceTypeId = ua.NodeId(reference)
        item.IsForward = True
        item.TargetNodeId = target
        self._session.iserver.node_mgt_service.add_references([item], self._session.user)

    def object(
        self,
        node: ua.NodeId,
        name: str,
        parent: ua.NodeId,
        kind: ua.NodeId,
        *,
        reference: int = _O.HasComponent,
        rule: str = "",
        space: int | None = None,
    ) -> ua.NodeId:
        """Add an object."""
        return self.add(
            node,
            name,
            parent,
            ua.ObjectAttributes(),
            reference=reference,
            node_class=ua.NodeClass.Object,
            kind=kind,
            rule=rule,
            space=space,
        )

    def variable(
        self,
        node: ua.NodeId,
        name: str,
        parent: ua.NodeId,
        data_type: ua.NodeId,
        value: ua.Variant | None = None,
        *,
        is_list: bool = False,
        kind: int = _O.PropertyType,
        rule: str = "",
        space: int | None = None,
    ) -> ua.NodeId:
        """Add a variable, which clients may read and not write."""
        attributes = ua.VariableAttributes()
        attributes.DataType = data_type
        attributes.Value = value if value is not None else ua.Variant()
        attributes.ValueRank = ua.ValueRank.OneDimension if is_list else ua.ValueRank.Scalar
        attributes.ArrayDimensions = [0] if is_list else []
        attributes.AccessLevel = attributes.UserAccessLevel = ua.AccessLevel.CurrentRead.mask
        is_property = kind == _O.PropertyType
        return self.add(
            node,
            name,
            parent,
            attributes,
            reference=_O.HasProperty if is_property else _O.HasComponent,
            node_class=ua.NodeClass.Variable,
            kind=ua.NodeId(kind),
            rule=rule,
            space=space,
        )

    def method(
        self,
        method: Method,
        node: ua.NodeId,
        arguments: tuple[ua.NodeId, ua.NodeId],
        parent: ua.NodeId,
        *,
        rule: str = "",
    ) -> ua.NodeId:
        """Add a method with its arguments."""
        attributes = ua.MethodAttributes()
        attributes.Executable = attributes.UserExecutable = True
        self.add(
            node,
            method.name,
            parent,
            attributes,
            reference=_O.HasComponent,
            node_class=ua.NodeClass.Method,
            rule=rule,
        )
        for where, name, texts in zip(
            arguments,
            ("InputArguments", "OutputArguments"),
            (method.inputs, method.outputs),
            strict=True,
        ):
            values = [self._argument(text) for text in texts]
            self.variable(
                where,
                name,
                node,
                ua.NodeId(_O.Argument),
                ua.Variant(values, ua.VariantType.ExtensionObject),
                is_list=True,
                rule="mandatory" if rule else "",
                space=0,
            )
        return node

    def _argument(self, text: str) -> ua.Argument:
        name, kind, is_list, _ = parsed(text)
        argument = ua.Argument()
        argument.Name = name
        argument.DataType = self.type_of(kind)
        argument.ValueRank = ua.ValueRank.OneDimension if is_list else ua.ValueRank.Scalar
        argument.ArrayDimensions = [0] if is_list else []
        return argument


async def load(server: Server, nodeset: Path | None = None) -> Nodes:
    """Add this specification's nodes to a server that is not yet up, and its types to asyncua.

    ``nodeset``: take the OPC Foundation's file in place of the table; this takes seconds, during
    which the event loop stands still. Raises :class:`ConfigError` for a file that is none.
    """
    nodes = Nodes(server, await server.register_namespace(URI))
    nodes.register()
    if nodeset is None:
        _build(nodes)
    else:
        try:
            await server.import_xml(str(nodeset))
        except Exception as error:  # noqa: BLE001 - what a broken file raises is not documented
            text = " ".join(str(error).split())
            raise ConfigError(f"{nodeset}: cannot be loaded as a nodeset: {text[:200]}") from None
        if nodes.own(VISION_SYSTEM) not in server.iserver.aspace:
            raise ConfigError(f"{nodeset}: is not the nodeset of {URI}")
    for name, (number, *_) in STRUCTURES.items():
        # The file gives subtypes without fields of their own no fields at all.
        await server.get_node(nodes.own(number)).write_data_type_definition(nodes.definition(name))
    return nodes


async def prove(nodeset: Path) -> None:
    """Load a nodeset into a server that never comes up. Raises :class:`ConfigError`."""
    server = Server()
    await server.init()
    await load(server, nodeset)


def _build(nodes: Nodes) -> None:
    _data_types(nodes)
    for number, (name, base) in TYPES.items():
        _object_type(nodes, number, name, base)
    for owner, number, name, kind, rule in PARTS:
        nodes.object(nodes.own(number), name, nodes.own(owner), nodes.own(kind), rule=rule)
    for name, (owner, number, property_number, state_number) in STATES.items():
        nodes.object(nodes.own(number), name, nodes.own(owner), ua.NodeId(_O.StateType))
        nodes.variable(
            nodes.own(property_number),
            "StateNumber",
            nodes.own(number),
            ua.NodeId(_O.UInt32),
            ua.Variant(state_number, ua.VariantType.UInt32),
            rule="mandatory",
            space=0,
        )
    for owner, methods in METHODS.items():
        for method in methods:
            numbers = nodes.own(method.input_number), nodes.own(method.output_number)
            nodes.method(
                method, nodes.own(method.number), numbers, nodes.own(owner), rule="mandatory"
            )
    for number, (name, base, fields) in EVENTS.items():
        _object_type(nodes, number, name, base)
        for field, field_number, kind_text in fields:
            _, kind_name, is_list, is_optional = parsed(f"{field}: {kind_text}")
            nodes.variable(
                nodes.own(field_number),
                field,
                nodes.own(number),
                nodes.type_of(kind_name),
                is_list=is_list,
                rule="optional" if is_optional else "mandatory",
            )


def _object_type(nodes: Nodes, number: int, name: str, base: int) -> None:
    attributes = ua.ObjectTypeAttributes()
    attributes.IsAbstract = False
    nodes.add(
        nodes.own(number),
        name,
        ua.NodeId(base),
        attributes,
        reference=_O.HasSubtype,
        node_class=ua.NodeClass.ObjectType,
    )


def _data_types(nodes: Nodes) -> None:
    def add(number: int, name: str, base: ua.NodeId, is_abstract: bool = False) -> ua.NodeId:
        attributes = ua.DataTypeAttributes()
        attributes.IsAbstract = is_abstract
        return nodes.add(
            nodes.own(number),
            name,
            base,
            attributes,
            reference=_O.HasSubtype,
            node_class=ua.NodeClass.DataType,
        )

    for name, (number, base) in SIMPLE.items():
        add(number, name, ua.NodeId(base))
    name, number, values_number, members = TRI_STATE
    add(number, name, ua.NodeId(_O.Enumeration))
    nodes.variable(
        nodes.own(values_number),
        "EnumValues",
        nodes.own(number),
        ua.NodeId(_O.EnumValueType),
        ua.Variant(
            [
                ua.EnumValueType(Value=value, DisplayName=ua.LocalizedText(member))
                for value, member in enumerate(members)
            ],
            ua.VariantType.ExtensionObject,
        ),
        is_list=True,
        rule="mandatory",
        space=0,
    )
    for name, (number, encoding, parent, _) in STRUCTURES.items():
        base_node = nodes.type_of(parent) if parent else ua.NodeId(_O.Structure)
        add(number, name, base_node, name == "BinaryIdBaseDataType")
        nodes.object(
            nodes.own(encoding),
            "Default Binary",
            nodes.own(number),
            ua.NodeId(_O.DataTypeEncodingType),
            reference=_O.HasEncoding,
            space=0,
        )
