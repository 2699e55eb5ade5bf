"""The part of the Machine Vision companion specification that a bridge serves (OPC 40100-1).

Names and node numbers are the specification's. What is not here, such as transfer of recipes,
configurations and step models, is optional there or belongs to a part that is left out.
:mod:`inspector.bridges.machine_vision_nodes` makes a server's nodes of this table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua
from asyncua.common.structures104 import make_enum, make_structure, new_enum_field

URI: Final = "http://opcfoundation.org/UA/MachineVision"

VISION_SYSTEM: Final = 1003
RECIPE_MANAGEMENT: Final = 1004
RESULT_MANAGEMENT: Final = 1007
VISION_STATE_MACHINE: Final = 1017
AUTOMATIC_MODE: Final = 1021
JOB_STARTED: Final = 1013
STATE_CHANGED: Final = 1018
RECIPE_PREPARED: Final = 1022
READY_EVENT: Final = 1023
RESULT_READY: Final = 1024
ACQUISITION_DONE: Final = 1025

_O = ua.ObjectIds
_FOUNDATION: Final = {
    "Boolean": _O.Boolean,
    "Int32": _O.Int32,
    "UInt32": _O.UInt32,
    "String": _O.String,
    "ByteString": _O.ByteString,
    "LocalizedText": _O.LocalizedText,
    "BaseDataType": _O.BaseDataType,
    "UtcTime": _O.UtcTime,
    "Duration": _O.Duration,
}
"""Types of the base specification, which has namespace 0."""

SIMPLE: Final = {
    "ResultStateDataType": (3009, _O.Int32),
    "TrimmedString": (3017, _O.String),
    "Handle": (3018, _O.UInt32),
}
_ID: Final = (
    "Id: TrimmedString",
    "Version: TrimmedString?",
    "Hash: ByteString?",
    "HashAlgorithm: String?",
    "Description: LocalizedText?",
)
_NAMED: Final = ("Id: TrimmedString", "Description: LocalizedText?")
STRUCTURES: Final[dict[str, tuple[int, int, str, tuple[str, ...]]]] = {
    "BinaryIdBaseDataType": (3019, 5027, "", _ID),
    "RecipeIdExternalDataType": (3002, 5002, "BinaryIdBaseDataType", _ID),
    "RecipeIdInternalDataType": (3013, 5268, "BinaryIdBaseDataType", _ID),
    "ConfigurationIdDataType": (3008, 5090, "BinaryIdBaseDataType", _ID),
    "ProductIdDataType": (3003, 5224, "", _NAMED),
    "PartIdDataType": (3004, 5013, "", _NAMED),
    "MeasIdDataType": (3015, 5006, "", _NAMED),
    "JobIdDataType": (3016, 5008, "", ("Id: TrimmedString",)),
    "ResultIdDataType": (3021, 5274, "", ("Id: TrimmedString",)),
    "ProcessingTimesDataType": (
        3005,
        5016,
        "",
        (
            "StartTime: UtcTime",
            "EndTime: UtcTime",
            "AcquisitionDuration: Duration?",
            "ProcessingDuration: Duration?",
        ),
    ),
    "ResultDataType": (
        3006,
        5018,
        "",
        (
            "ResultId: ResultIdDataType",
            "HasTransferableDataOnFile: Boolean?",
            "IsPartial: Boolean",
            "IsSimulated: Boolean?",
            "ResultState: ResultStateDataType",
            "MeasId: MeasIdDataType?",
            "PartId: PartIdDataType?",
            "ExternalRecipeId: RecipeIdExternalDataType?",
            "InternalRecipeId: RecipeIdInternalDataType",
            "ProductId: ProductIdDataType?",
            "ExternalConfigurationId: ConfigurationIdDataType?",
            "InternalConfigurationId: ConfigurationIdDataType",
            "JobId: JobIdDataType",
            "CreationTime: UtcTime",
            "ProcessingTimes: ProcessingTimesDataType?",
            "ResultContent: BaseDataType[]?",
        ),
    ),
}
"""Number, number of the binary encoding, supertype and fields; ``?`` is optional, ``[]`` a list."""

TRI_STATE: Final = ("TriStateBooleanDataType", 3014, 6367, ("FALSE_0", "TRUE_1", "DONTCARE_2"))

STATES: Final = {
    "Preoperational": (VISION_STATE_MACHINE, 5028, 6226, 1),
    "Halted": (VISION_STATE_MACHINE, 5029, 6227, 2),
    "Error": (VISION_STATE_MACHINE, 5030, 6228, 3),
    "Operational": (VISION_STATE_MACHINE, 5031, 6229, 4),
    "Initialized": (AUTOMATIC_MODE, 5056, 6259, 5),
    "Ready": (AUTOMATIC_MODE, 5057, 6260, 6),
    "SingleExecution": (AUTOMATIC_MODE, 5058, 6261, 7),
    "ContinuousExecution": (AUTOMATIC_MODE, 5059, 6262, 8),
}
"""The machine that a state belongs to, its number, that of its StateNumber, and StateNumber."""

EVENTS: Final[dict[int, tuple[str, int, tuple[tuple[str, int, str], ...]]]] = {
    JOB_STARTED: ("JobStartedEventType", _O.BaseEventType, (("JobId", 6141, "JobIdDataType"),)),
    STATE_CHANGED: ("StateChangedEventType", _O.TransitionEventType, ()),
    RECIPE_PREPARED: (
        "RecipePreparedEventType",
        _O.BaseEventType,
        (
            ("ExternalId", 6291, "RecipeIdExternalDataType?"),
            ("InternalId", 6140, "RecipeIdInternalDataType"),
            ("ProductId", 6292, "ProductIdDataType?"),
        ),
    ),
    READY_EVENT: ("ReadyEventType", _O.BaseEventType, (("JobId", 6294, "JobIdDataType"),)),
    RESULT_READY: (
        "ResultReadyEventType",
        _O.BaseEventType,
        (
            ("CreationTime", 6303, "UtcTime"),
            ("ExternalConfigurationId", 6045, "ConfigurationIdDataType?"),
            ("ExternalRecipeId", 6301, "RecipeIdExternalDataType?"),
            ("InternalConfigurationId", 6142, "ConfigurationIdDataType"),
            ("InternalRecipeId", 6302, "RecipeIdInternalDataType"),
            ("IsPartial", 6296, "Boolean"),
            ("IsSimulated", 6297, "Boolean?"),
            ("JobId", 6300, "JobIdDataType"),
            ("MeasId", 6299, "MeasIdDataType?"),
            ("PartId", 6304, "PartIdDataType?"),
            ("ProcessingTimes", 6305, "ProcessingTimesDataType?"),
            ("ProductId", 6143, "ProductIdDataType?"),
            ("ResultContent", 6306, "BaseDataType[]?"),
            ("ResultId", 6295, "ResultIdDataType"),
            ("ResultState", 6298, "ResultStateDataType"),
        ),
    ),
    ACQUISITION_DONE: (
        "AcquisitionDoneEventType",
        _O.BaseEventType,
        (("JobId", 6308, "JobIdDataType"),),
    ),
}
"""Event types: name, supertype, and the number and type of each field."""

_CAUSE: Final = ("Cause: Int32", "CauseDescription: String")
_ERROR: Final = ("Error: Int32",)
_START: Final = (
    "MeasId: MeasIdDataType",
    "PartId: PartIdDataType",
    "RecipeId: RecipeIdExternalDataType",
    "ProductId: ProductIdDataType",
    "Parameters: BaseDataType[]",
)
_STARTED: Final = ("JobId: JobIdDataType", *_ERROR)
_RECIPE: Final = ("ExternalId: RecipeIdExternalDataType", "InternalIdIn: RecipeIdInternalDataType")
_BY_ID: Final = ("ResultId: ResultIdDataType", "Timeout: Int32")


@dataclass(frozen=True)
class Method:
    """A method of a type; arguments are written ``Name: Type``, with ``[]`` for a list."""

    name: str
    number: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_number: int
    output_number: int


METHODS: Final[dict[int, tuple[Method, ...]]] = {
    VISION_STATE_MACHINE: (
        Method("Halt", 7094, _CAUSE, _ERROR, 6254, 6255),
        Method("Reset", 7093, _CAUSE, _ERROR, 6256, 6257),
    ),
    AUTOMATIC_MODE: (
        Method("Abort", 7097, _CAUSE, _ERROR, 6285, 6286),
        Method("StartContinuous", 7009, _START, _STARTED, 6086, 6087),
        Method("StartSingleJob", 7098, _START, _STARTED, 6281, 6282),
        Method("Stop", 7096, _CAUSE, _ERROR, 6287, 6288),
    ),
    RECIPE_MANAGEMENT: (
        Method(
            "GetRecipeListFiltered",
            7014,
            (
                "ExternalId: RecipeIdExternalDataType",
                "ProductId: ProductIdDataType",
                "IsPrepared: TriStateBooleanDataType",
                "MaxResults: UInt32",
                "StartIndex: UInt32",
                "Timeout: Int32",
            ),
            (
                "IsComplete: Boolean",
                "ResultCount: UInt32",
                "RecipeHandle: Handle",
                "RecipeList: RecipeIdInternalDataType[]",
                *_ERROR,
            ),
            6156,
            6157,
        ),
        Method(
            "PrepareRecipe",
            7015,
            _RECIPE,
            ("InternalIdOut: RecipeIdInternalDataType", "IsCompleted: Boolean", *_ERROR),
            6148,
            6149,
        ),
        Method(
            "UnprepareRecipe",
            7055,
            _RECIPE,
            ("InternalIdOut: RecipeIdInternalDataType", *_ERROR),
            6152,
            6153,
        ),
    ),
    RESULT_MANAGEMENT: (
        Method(
            "GetResultById",
            7026,
            _BY_ID,
            ("ResultHandle: Handle", "Result: ResultDataType", *_ERROR),
            6209,
            6210,
        ),
        Method(
            "GetResultComponentsById",
            7007,
            _BY_ID,
            (
                "HasTransferableDataOnFile: Boolean",
                "ResultHandle: Handle",
                "IsPartial: Boolean",
                "IsSimulated: Boolean",
                "ResultState: ResultStateDataType",
                "MeasId: MeasIdDataType",
                "PartId: PartIdDataType",
                "ExternalRecipeId: RecipeIdExternalDataType",
                "InternalRecipeId: RecipeIdInternalDataType",
                "ProductId: ProductIdDataType",
                "ExternalConfigurationId: ConfigurationIdDataType",
                "InternalConfigurationId: ConfigurationIdDataType",
                "JobId: JobIdDataType",
                "CreationTime: UtcTime",
                "ProcessingTimes: ProcessingTimesDataType",
                "ResultContent: BaseDataType[]",
                *_ERROR,
            ),
            6024,
            6025,
        ),
        Method(
            "GetResultListFiltered",
            7089,
            (
                "ResultState: ResultStateDataType",
                "MeasId: MeasIdDataType",
                "PartId: PartIdDataType",
                "ExternalRecipeId: RecipeIdExternalDataType",
                "InternalRecipeId: RecipeIdInternalDataType",
                "ExternalConfigurationId: ConfigurationIdDataType",
                "InternalConfigurationId: ConfigurationIdDataType",
                "ProductId: ProductIdDataType",
                "JobId: JobIdDataType",
                "MaxResults: UInt32",
                "StartIndex: UInt32",
                "Timeout: Int32",
            ),
            (
                "IsComplete: Boolean",
                "ResultCount: UInt32",
                "ResultHandle: Handle",
                "ResultList: ResultDataType[]",
                *_ERROR,
            ),
            6213,
            6214,
        ),
    ),
}

TYPES: Final = {
    VISION_SYSTEM: ("VisionSystemType", _O.BaseObjectType),
    RECIPE_MANAGEMENT: ("RecipeManagementType", _O.BaseObjectType),
    RESULT_MANAGEMENT: ("ResultManagementType", _O.BaseObjectType),
    VISION_STATE_MACHINE: ("VisionStateMachineType", _O.FiniteStateMachineType),
    AUTOMATIC_MODE: ("VisionAutomaticModeStateMachineType", _O.FiniteStateMachineType),
}
PARTS: Final = (
    (VISION_SYSTEM, 5053, "VisionStateMachine", VISION_STATE_MACHINE, "mandatory"),
    (VISION_SYSTEM, 5015, "RecipeManagement", RECIPE_MANAGEMENT, "optional"),
    (VISION_SYSTEM, 5020, "ResultManagement", RESULT_MANAGEMENT, "optional"),
    (VISION_STATE_MACHINE, 5024, "AutomaticModeStateMachine", AUTOMATIC_MODE, "optional"),
)


class Types:
    """The specification's types, where its namespace is number ``space``."""

    def __init__(self, space: int) -> None:
        self.space = space

    def own(self, number: int) -> ua.NodeId:
        """The node of this number in the specification."""
        return ua.NodeId(number, self.space)

    def type_of(self, name: str) -> ua.NodeId:
        """The data type of this name."""
        if name in _FOUNDATION:
            return ua.NodeId(_FOUNDATION[name])
        if name == TRI_STATE[0]:
            return self.own(TRI_STATE[1])
        return self.own((SIMPLE.get(name) or STRUCTURES[name])[0])

    def new(self, name: str, **fields: Any) -> Any:
        """A structure of this name; optional fields that are not given are absent."""
        return ua.uatypes.extension_objects_by_datatype[self.type_of(name)](**fields)

    def variant(self, text: str, value: Any = None) -> ua.Variant:
        """A value of the type that ``text`` names; None: nothing, as far as the type has it."""
        _, kind, is_list, _ = parsed(f": {text}")
        if kind in STRUCTURES:
            if value is None:
                value = [] if is_list else self.new(kind)
            return ua.Variant(value, ua.VariantType.ExtensionObject, is_array=is_list)
        if value is None:
            value = [] if is_list else 0
        if kind == TRI_STATE[0]:
            kind = "Int32"
        elif kind in SIMPLE:
            kind = ua.ObjectIdNames[SIMPLE[kind][1]]
        kind = {"UtcTime": "DateTime", "BaseDataType": "Variant"}.get(kind, kind)
        if kind == "Boolean":
            value = bool(value)
        return ua.Variant(value, ua.VariantType[kind], is_array=is_list)

    def definition(self, name: str) -> ua.StructureDefinition:
        """The fields of a structure, those of its base included."""
        _, encoding, parent, texts = STRUCTURES[name]
        definition = ua.StructureDefinition()
        definition.BaseDataType = self.type_of(parent) if parent else ua.NodeId(_O.Structure)
        definition.DefaultEncodingId = self.own(encoding)
        definition.Fields = [self._field(text) for text in texts]
        definition.StructureType = (
            ua.StructureType.StructureWithOptionalFields
            if any(one.IsOptional for one in definition.Fields)
            else ua.StructureType.Structure
        )
        return definition

    def _field(self, text: str) -> ua.StructureField:
        name, kind, is_list, is_optional = parsed(text)
        field = ua.StructureField()
        field.Name = name
        field.DataType = self.type_of(kind)
        field.IsOptional = is_optional
        field.ValueRank = ua.ValueRank.OneDimension if is_list else ua.ValueRank.Scalar
        field.ArrayDimensions = [0] if is_list else []
        return field

    def register(self) -> None:
        """Have asyncua know the structures, once a process and namespace.

        A client that reads them from the server gets them wrong: asyncua takes TrimmedString for
        the type of that name in the base specification, and subtypes of a file for their base.
        """
        known = ua.uatypes
        for number, base in SIMPLE.values():
            known.basetype_by_datatype[self.own(number)] = ua.ObjectIdNames[base]
        name, number, _, members = TRI_STATE
        if self.own(number) not in known.enums_by_datatype:
            made = make_enum(name, _enumeration(members), False)
            ua.register_enum(name, self.own(number), made[name])
        for name, (number, encoding, _, _) in STRUCTURES.items():
            if self.own(number) not in known.extension_objects_by_datatype:
                made = make_structure(self.own(number), name, self.definition(name))
                ua.register_extension_object(name, self.own(encoding), made[name], self.own(number))


def parsed(text: str) -> tuple[str, str, bool, bool]:
    """Name, type, whether it is a list, and whether it is optional."""
    name, _, kind = text.partition(": ")
    is_optional = kind.endswith("?")
    kind = kind.removesuffix("?")
    return name, kind.removesuffix("[]"), kind.endswith("[]"), is_optional


def _enumeration(members: Iterable[str]) -> ua.EnumDefinition:
    definition = ua.EnumDefinition()
    for value, member in enumerate(members):
        field = new_enum_field(member)
        field.Value = value
        definition.Fields.append(field)
    return definition
