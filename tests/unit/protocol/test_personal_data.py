"""What counts as personal data, case by case, both ways."""

import json
import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol import personal_data
from loopd.protocol.personal_data import find_personal_data, kind_of_key

TEXTS_WITH_PERSONAL_DATA = [
    ("notes", "Ask maria@example.org", "email"),
    ("notes", "maria.huber+loop@stadt.muenchen.de", "email"),
    ("notes", "mailto:info@example.com?subject=grain", "email"),
    ("notes", "<info@example.com>", "email"),
    ("notes", "Jörg: jörg@müller.de", "email"),
    ("notes", "maria@munich.loop", "email"),
    ("notes", "user:maria@munich.loop, or maria@example.org", "email"),
    ("notes", "user:maria@example.org", "email"),
    ("notes", "https://example.org/?to=info%40example.org", "email"),
    ("notes", "ftp://maria@example.org/pictures", "email"),
    ("id", "maria@example.org", "email"),
    ("notes", "MARIA@EXAMPLE.ORG", "email"),
    ("notes", "o'brien@example.ie", "email"),
    ("notes", "two at once a@b.de;c@d.at", "email"),
    ("notes", "+49 89 1234567", "phone"),
    ("notes", "+49891234567", "phone"),
    ("notes", "+49 (0)89 1234567", "phone"),
    ("notes", "+49 (0) 89 / 123 45 67", "phone"),
    ("notes", "+49-89-1234-567", "phone"),
    ("notes", "+49.89.1234567", "phone"),
    ("notes", "+49.891234567", "phone"),
    ("notes", "(+49) 89 1234567", "phone"),
    ("notes", "+43 1 588 58-0", "phone"),
    ("notes", "+43 664 1234567", "phone"),
    ("notes", "+1 555 123 4567", "phone"),
    ("notes", "+1 (555) 123-4567", "phone"),
    ("notes", "+41\u00a044\u00a0123\u00a045\u00a067", "phone"),
    ("notes", "Call +44 20 7946 0958 before ten", "phone"),
    ("batch_number", "+49 89 1234567", "phone"),
    ("notes", "0049 89 1234567", "phone"),
    ("notes", "0049891234567", "phone"),
    ("notes", "00 49 89 1234567", "phone"),
    ("notes", "0043 (1) 58858", "phone"),
    ("notes", "004315885812", "phone"),
    ("notes", "(089) 123-4567", "phone"),
    ("notes", "(089) 1234567", "phone"),
    ("notes", "(0)89 1234567, at the gate", "phone"),
    ("notes", "089/1234567", "phone"),
    ("notes", "089 / 123 45 67", "phone"),
    ("notes", "089 1234567", "phone"),
    ("notes", "089-1234567", "phone"),
    ("notes", "030 12 34 56 78", "phone"),
    ("notes", "0664 123 45 67", "phone"),
    ("notes", "0171 2345678", "phone"),
    ("notes", "0171/2345678 (evenings)", "phone"),
    ("notes", "(555) 123-4567", "phone"),
    ("notes", "Tel. 0891234567", "phone"),
    ("notes", "Tel.: 0891234567", "phone"),
    ("notes", "tel 1234567", "phone"),
    ("notes", "Telefon: 089 1234567", "phone"),
    ("notes", "Phone 5551234567", "phone"),
    ("notes", "phone number: 123 456 789", "phone"),
    ("notes", "Mobil 01712345678", "phone"),
    ("notes", "Handy: 0171-2345678", "phone"),
    ("notes", "Fax 089-12345", "phone"),
    ("notes", "tel:+49891234567", "phone"),
    ("address", "Gate 3, Tel: 089/1234567", "phone"),
    ("notes", "DE89370400440532013000", "iban"),
    ("notes", "DE89 3704 0044 0532 0130 00", "iban"),
    ("notes", "Pay to DE89 3704 0044 0532 0130 00 please", "iban"),
    ("notes", "de89370400440532013000", "iban"),
    ("notes", "AT61 1904 3002 3457 3201.", "iban"),
    ("notes", "AT611904300234573201", "iban"),
    ("notes", "GB82-WEST-1234-5698-7654-32", "iban"),
    ("notes", "IBAN:FR1420041010050500013M02606", "iban"),
    ("notes", "NO9386011117947", "iban"),
    ("serial_number", "DE89370400440532013000", "iban"),
]

TEXTS_WITHOUT_PERSONAL_DATA = [
    ("gtin", "4006381333931"),
    ("gtin", "00712345678904"),
    ("notes", "GTIN 04006381333931"),
    ("notes", "00012345678905"),
    ("notes", "0036000291452"),
    ("batch_number", "2025-W22-01"),
    ("batch_number", "2026-W47-03"),
    ("batch_number", "0123-4567"),
    ("batch_number", "089-1234567"),
    ("lot_number", "0815 471122"),
    ("serial_number", "0089 4711 22"),
    ("batch_id", "LOT-2025-0123456789"),
    ("batch_id", "B0123456789"),
    ("ewc_code", "15 01 02"),
    ("ewc_code", "02 07 04"),
    ("notes", "EWC 02 07 04 and 20 01 08"),
    ("cas_number", "7732-18-5"),
    ("cas_number", "0064-17-5"),
    ("notes", "Contains 64-17-5 and 1310-73-2"),
    ("hs_code", "230330"),
    ("notes", "CN 0402 10 11"),
    ("notes", "TARIC 0402 10 11 00"),
    ("notes", "0402 10"),
    ("taric_code", "0402101100"),
    ("cn_code", "23033000"),
    ("nace_code", "C11.05"),
    ("timestamp", "2025-05-27T10:00:00Z"),
    ("timestamp", "2025-05-27T10:00:00.123456+02:00"),
    ("notes", "from 2025-05-27 to 2025-06-03"),
    ("notes", "05.06.2025"),
    ("notes", "05/06/2025, 08:00 - 16:30"),
    ("notes", "05-06-2025"),
    ("notes", "Phone 2025-05-27"),
    ("notes", "48.1351, 11.5820"),
    ("notes", "+48.1351 +011.5820"),
    ("notes", "+48.13512 -011.58201/"),
    ("notes", "(48.1351, 11.5820)"),
    ("notes", "0.123456789"),
    ("notes", "0,50 EUR each"),
    ("notes", "Price 1 250.00 LC for 10 000 kg"),
    ("notes", "1,000,000 pieces"),
    ("notes", "95 % clean (5 % labels)"),
    ("notes", "-5 to +25 °C"),
    ("notes", "pH +7, 3 + 20 bags"),
    ("id", "550e8400-e29b-41d4-a716-446655440000"),
    ("hash_digest", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("notes", "sha256 0123456789012345678901234567890123456789012345678901234567890123"),
    ("url", "https://example.com/item/00491234567890"),
    ("notes", "see https://example.com/089/1234567 for more"),
    ("notes", "https://id.gs1.org/01/04006381333931/10/0815-4711"),
    ("notes", "https://maps.example.org/@48.1351,11.5820,15z"),
    ("notes", "https://medium.example/@author.name/post"),
    ("from", "user:maria@munich.loop"),
    ("to", "business:brewery@munich.loop"),
    ("to", "node:clearing.berlin.loop@munich.loop"),
    ("notes", "paid by user:maria@munich.loop to business:farm@vienna.loop."),
    ("address", "Leopoldstraße 12, 80802 München"),
    ("address", "Straße des 17. Juni 135, 10623 Berlin"),
    ("address", "Recycling Center Munich"),
    ("address", "Quai 04, Hall 12b, Gate 3"),
    ("origin_city", "Frankfurt (Oder)"),
    ("origin_city", "St. Pölten"),
    ("reference_standard", "ISO 14001:2015"),
    ("reference_standard", "DIN EN 643:2014-01"),
    ("reference_regulation", "(EU) 2024/1781"),
    ("certifications", "iso-14001"),
    ("id", "PRD-DE-MUC-2025-DESK-F4A7B2"),
    ("id", "MAT-DE-MUC-2025-FOOD-B847F3"),
    ("id", "TXN-2025-05-27-001"),
    ("name", "Standing Desk — Ergotron WorkFit"),
    ("name", "Telephone cable, 100 m"),
    ("name", "Mobile crane LTM 1030"),
    ("name", "Fax paper A4"),
    ("model", "Fon 12"),
    ("notes", "DE89370400440532013001"),
    ("notes", "DE12 is a route"),
    ("notes", "de4d00000000000000000000"),
    ("notes", "12 x 25 kg @ pallet"),
    ("notes", "@type and @id"),
    ("notes", "approx. 0 to 5 days"),
    ("passport_id", "0049-1234-5678"),
    ("country", "DE"),
]


@pytest.mark.parametrize(("key", "text", "kind"), TEXTS_WITH_PERSONAL_DATA)
def test_personal_data_is_found_with_its_place_and_kind(key, text, kind):
    assert find_personal_data({"metadata": {key: text}}) == [(f"/metadata/{key}", kind)]


@pytest.mark.parametrize(("key", "text"), TEXTS_WITHOUT_PERSONAL_DATA)
def test_what_goods_carry_passes(key, text):
    assert find_personal_data({"metadata": {key: [text]}, "x": text if key == "notes" else ""}) == []


@pytest.mark.parametrize(
    "key",
    [
        "contact", "Contact", "contact_person", "contactPerson", "contact-name", "ContactDetails", "seller_contact",
        "email", "e_mail", "e-mail", "eMail", "EMAIL", "E-Mail", "emailAddress", "owner_email", "email_address",
        "phone", "Phone", "phone_number", "phoneNumber", "telephone", "seller-phone", "mobile", "mobile_number",
        "first_name", "firstName", "First-Name", "firstname", "FIRST_NAME", "last_name", "lastName", "surname",
        "given_name", "givenName", "family_name", "familyName", "full_name", "fullName", "driver full name",
        "birth", "birthday", "birthDate", "birth_date", "date_of_birth", "dateOfBirth", "birthplace", "birth-year",
        "Vorname", "nachname", "telefon", "Ansprechpartner", "iban",
    ],
)  # fmt: skip
def test_a_key_that_names_a_person_is_found_whatever_it_holds(key):
    assert find_personal_data({"metadata": {key: None}}) == [
        (f"/metadata/{key}" if " " not in key else "/metadata", "person")
    ]


@pytest.mark.parametrize(
    "key",
    [
        "name", "model", "manufacturer", "economic_operator_name", "food_contact", "contactless", "ewaste-phones",
        "electronics-mobile", "phone_count", "telephony", "notes", "address", "location", "source_node", "batch_number",
        "serial_number", "public_key", "user", "company", "@context", "@type", "firstly", "last_seen", "full", "birch",
        "material_ids", "from", "to", "current_city", "carbon_footprint_kg_co2e", "w3c_vc_issuer", "family", "given",
    ],
)  # fmt: skip
def test_other_keys_pass(key):
    assert kind_of_key(key) is None


def test_a_key_that_is_itself_personal_data_is_not_told_back():
    assert find_personal_data({"metadata": {"maria@example.org": 1}}) == [("/metadata", "email")]
    assert find_personal_data({"a": [{"+49 89 1234567": {}}]}) == [("/a/0", "phone")]


def test_every_place_is_listed_in_the_order_of_the_document():
    document = {"a": ["x", "b@c.de"], "email": "x", "z": {"y": [{"w": "089/1234567"}]}}
    assert find_personal_data(document) == [("/a/1", "email"), ("/email", "person"), ("/z/y/0/w", "phone")]


def test_the_contact_of_a_node_is_the_office_s_and_allowed_there_alone():
    document = {"contact": {"email": "office@munich.example", "phone": "+49 89 1234567"}, "metadata": {}}
    assert find_personal_data(document, "NodeInfo") == []
    assert find_personal_data(document, "MaterialDNA") == [("/contact", "person")]
    assert find_personal_data({"metadata": document}, "NodeInfo") == [("/metadata/contact", "person")]


def test_a_public_key_is_not_read_as_text():
    armour = "-----BEGIN PUBLIC KEY-----\nMCow+49891234567@x.de\n-----END PUBLIC KEY-----"
    assert find_personal_data({"nodes": [{"public_key": armour}]}, "NodeRegistry") == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from([("ada@example.org", "email"), ("+49 89 1234567", "phone")]))
def test_personal_data_is_found_wherever_it_stands(value, planted):
    text, kind = planted
    assert ("/last", kind) in find_personal_data({"first": value, "last": text})


@given(json_values)
def test_pointers_never_tell_the_value(value):
    found = find_personal_data({"metadata": {"k": [value, "secret-person@example.org"]}})
    assert "secret-person" not in json.dumps(found)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000,
        "a@" * 150_000,
        "0" * 300_000,
        "+1" * 150_000,
        "0 1" * 100_000,
        "tel " * 75_000,
        "+1 2 " * 60_000,
        "DE12" * 75_000,
        "a." * 100_000 + "@" + "b." * 50_000,
        "node:" * 60_000 + "@b.loop",
    ],
)
def test_long_texts_are_searched_in_linear_time(text):
    # Quadratic work on these would take minutes; the suite would not end.
    assert isinstance(find_personal_data({"notes": text}), list)


def test_the_quick_look_at_a_key_misses_none_of_the_listed():
    joined = [*personal_data._PERSON_KEYS, *("_".join(ending) for ending in personal_data._PERSON_ENDINGS)]
    assert {key for key in joined if kind_of_key(key) != "person"} == set()


def test_a_random_uuid_is_never_an_iban() -> None:
    # Drawn until one of the former false finds was among them: two letters, two digits, and a check sum that holds.
    draw = random.Random(1)
    for _ in range(20_000):
        text = str(uuid.UUID(int=draw.getrandbits(128), version=4))
        assert find_personal_data({"id": text}, "MaterialStatusUpdate") == [], text


def test_an_id_of_the_protocol_is_never_an_iban() -> None:
    assert find_personal_data({"id": "PRD-DE89370400440532013000"}, "ProductDNA") == []
    assert find_personal_data({"note": "DE89370400440532013000"}, "ProductDNA") == [("/note", "iban")]
