//! Types that Envoy takes in packed messages, and that no file of its own API
//! names: they are added to the known ones here.

use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// Adds what is missing.
pub(super) fn add(pool: &mut DescriptorPool) {
    const STRUCT: &str = ".google.protobuf.Struct";
    let typed_struct = || {
        let fields = [field("type_url", 1, Type::String, ""), field("value", 2, Type::Message, STRUCT)];
        message("TypedStruct", fields, [])
    };
    let uint32 = ".google.protobuf.UInt32Value";
    let range = message(
        "CidrRange",
        [field("address_prefix", 1, Type::String, ""), field("prefix_len", 2, Type::Message, uint32)],
        [],
    );
    let ranges = message(
        "IPRangeMatcher",
        [
            repeated(field("ranges", 1, Type::Message, ".xds.core.v3.CidrRange")),
            field("on_match", 2, Type::Message, ".xds.type.matcher.v3.Matcher.OnMatch"),
            field("exclusive", 3, Type::Bool, ""),
        ],
        [],
    );
    let of_ip = ".xds.type.matcher.v3.IPMatcher.IPRangeMatcher";
    let matcher =
        message("IPMatcher", [repeated(field("range_matchers", 1, Type::Message, of_ip))], [ranges]);
    let files = [
        file(
            "udpa/type/v1/typed_struct.proto",
            "udpa.type.v1",
            typed_struct(),
            &["google/protobuf/struct.proto"],
        ),
        file(
            "xds/type/v3/typed_struct.proto",
            "xds.type.v3",
            typed_struct(),
            &["google/protobuf/struct.proto"],
        ),
        file("xds/core/v3/cidr.proto", "xds.core.v3", range, &["google/protobuf/wrappers.proto"]),
        file(
            "xds/type/matcher/v3/ip.proto",
            "xds.type.matcher.v3",
            matcher,
            &["xds/core/v3/cidr.proto", "xds/type/matcher/v3/matcher.proto"],
        ),
    ];
    for file in files {
        if pool.get_file_by_name(file.name()).is_none() {
            // A type that cannot be added stays unknown, and is shown as it is.
            let _ = pool.add_file_descriptor_proto(file);
        }
    }
}

fn file(name: &str, package: &str, message: DescriptorProto, imports: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.into()),
        package: Some(package.into()),
        dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
        message_type: vec![message],
        syntax: Some("proto3".into()),
        ..FileDescriptorProto::default()
    }
}

fn message<const F: usize, const N: usize>(
    name: &str,
    fields: [FieldDescriptorProto; F],
    nested: [DescriptorProto; N],
) -> DescriptorProto {
    DescriptorProto {
        name: Some(name.into()),
        field: fields.into(),
        nested_type: nested.into(),
        ..DescriptorProto::default()
    }
}

fn field(name: &str, number: i32, kind: Type, type_name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        type_name: (!type_name.is_empty()).then(|| type_name.to_owned()),
        ..FieldDescriptorProto::default()
    }
}

fn repeated(field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { label: Some(Label::Repeated.into()), ..field }
}
