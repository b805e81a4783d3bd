"""The LOINC codes of vital signs (FHIR R4) by our observed properties; pure."""

LOINC = {
    "8867-4": "heart-rate",
    "9279-1": "respiratory-rate",
    "2708-6": "oxygen-saturation",
    "59408-5": "oxygen-saturation",  # by pulse oximetry
    "8310-5": "body-temperature",
    "8302-2": "body-height",
    "29463-7": "body-weight",
    "39156-5": "body-mass-index",
    "8480-6": "systolic-blood-pressure",
    "8462-4": "diastolic-blood-pressure",
    "55423-8": "steps",
}
"""Observation.code or Observation.component.code, system http://loinc.org."""
PANELS = {
    "85354-9": "chimata:BloodPressure",
    "55284-4": "chimata:BloodPressure",
    "85353-1": "chimata:VitalSign",
}
"""Codes of what holds several values, by the category of all of them."""
DOCUMENTS = {
    "chimata:HeartRate": "fhir-heart-rate",
    "chimata:BloodPressure": "fhir-blood-pressure",
    "chimata:BodyTemperature": "fhir-body-temperature",
    "chimata:OxygenSaturation": "fhir-oxygen-saturation",
    "chimata:VitalSign": "fhir-vital-sign",
    "pd:PhysicalHealth": "fhir-physical-health",
    "health:PersonGeneratedHealthData": "fhir-recorded",
    "pd:HealthRecord": "fhir-record",
}
"""The observed property of a resource kept whole, by what it tells of a person."""
RECORD = "pd:HealthRecord"
"""The category of all that is none of these: a grant for one vital sign does not reach it."""
