"""Cohorts from tables as cBioPortal, Xena and the GDC write them, each in a small file."""

import gzip

import mudata
import numpy as np
import pandas as pd
import pytest

import aeverse as ae

CBIO_RNA = """Hugo_Symbol\tEntrez_Gene_Id\tTCGA-3C-AALI-01\tTCGA-3C-AALJ-01\tTCGA-3C-AALJ-06\tTCGA-3C-AALK-11
TP53\t7157\t1.5\t2.5\t9\t8
ESR1\t2099\tNA\t4\t9\t8
ESR1\t2099\t0\t40\t9\t8
\t100\t7\t6\t9\t8
EMPTY\t3\tNA\tNA\tNA\tNA
"""
CBIO_PATIENTS = """#Patient Identifier\tOverall Survival (Months)\tOverall Survival Status\tSex
#Identifier\tmonths\tstatus\tsex
#STRING\tNUMBER\tSTRING\tSTRING
#1\t1\t1\t1
PATIENT_ID\tOS_MONTHS\tOS_STATUS\tSEX\tAJCC_STAGE\tEMPTY
TCGA-3C-AALI\t12.5\t1:DECEASED\tFemale\tStage II\t[Not Available]
TCGA-3C-AALJ\t[Not Available]\t0:LIVING\tFemale\t[Discrepancy]\t[Not Available]
TCGA-ZZ-ZZZZ\t3\t0:LIVING\tMale\tStage I\t[Not Available]
"""
XENA_RNA = """sample\tTCGA-3C-AALI-01\tTCGA-3C-AALJ-01
TP53\t1.5\t2.5
ESR1\t0.5\t4
"""
XENA_SURVIVAL = """sample\t_PATIENT\tOS\tOS.time\tPFI\tPFI.time
TCGA-3C-AALI-01\tTCGA-3C-AALI\t1\t304.375\t0\t60.875
TCGA-3C-AALJ-01\tTCGA-3C-AALJ\t0\t30.4375\t\t
"""
GDC_CLINICAL = """case_submitter_id,vital_status,days_to_death,days_to_last_follow_up,age_at_index
TCGA-3C-AALI,Dead,304.375,'--,61
TCGA-3C-AALJ,Alive,'--,30.4375,'--
"""
MAF = """#version 2.4
Hugo_Symbol\tTumor_Sample_Barcode\tVariant_Classification
TP53\tTCGA-3C-AALI-01A-11D-A41F-09\tMissense_Mutation
TP53\tTCGA-3C-AALI-01A-11D-A41F-09\tNonsense_Mutation
TTN\tTCGA-3C-AALI-01A-11D-A41F-09\tSilent
TTN\tTCGA-3C-AALK-01A-11D-A41F-09\tIntron
PIK3CA\tTCGA-3C-AALJ-01A-11D-A41F-09\tFrame_Shift_Del
PIK3CA\tTCGA-3C-AALJ-06A-11D-A41F-09\tMissense_Mutation
"""


def report(mdata):
    table = mdata.uns["ae"]["cohort"]["dropped"]
    return {(t, what): n for t, what, n in zip(table["table"], table["what"], table["count"], strict=True)}


@pytest.fixture
def write(tmp_path):
    def writer(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return writer


def test_cbioportal(write):
    mdata = ae.datasets.cohort_from_tables(
        {"rna": write("data_mrna.txt", CBIO_RNA)}, write("data_clinical_patient.txt", CBIO_PATIENTS)
    )
    assert list(mdata.obs_names) == ["TCGA-3C-AALI", "TCGA-3C-AALJ"]
    rna = mdata["rna"]
    assert list(rna.var_names) == ["TP53", "ESR1", "100"]  # without a symbol: the Entrez identifier
    np.testing.assert_array_equal(rna.X, [[1.5, 0, 7], [2.5, 40, 6]])  # the more variable row of ESR1
    assert rna.X.dtype == np.float32
    assert mdata.obs["OS_time"].tolist()[0] == 12.5
    assert np.isnan(mdata.obs["OS_time"].iloc[1])
    assert mdata.obs["OS_event"].tolist() == [1.0, 0.0]
    assert mdata.obs["AJCC_STAGE"].isna().tolist() == [False, True]
    assert "EMPTY" not in mdata.obs
    assert report(mdata) == {
        ("clinical", "columns without any value"): 1,
        ("clinical", "patients without any modality"): 1,
        ("rna", "features without any value"): 1,
        ("rna", "further samples of a patient"): 1,
        ("rna", "rows of a feature that occurs more than once"): 1,
        ("rna", "samples of normal tissue"): 1,
    }
    assert mdata.uns["ae"]["cohort"]["survival"] == {"OS": "OS_MONTHS; OS_STATUS"}


def test_xena_days_become_months(write):
    mdata = ae.datasets.cohort_from_tables(
        {"rna": write("HiSeqV2.tsv", XENA_RNA)}, write("survival.tsv", XENA_SURVIVAL)
    )
    np.testing.assert_array_equal(mdata["rna"].X, [[1.5, 0.5], [2.5, 4]])
    np.testing.assert_allclose(mdata.obs["OS_time"], [10, 1])
    assert mdata.obs["OS_event"].tolist() == [1, 0]
    np.testing.assert_allclose(mdata.obs["PFI_time"], [2, np.nan])
    np.testing.assert_allclose(mdata.obs["PFI_event"], [0, np.nan])


def test_gdc_days_to_death_or_last_follow_up(write):
    mdata = ae.datasets.cohort_from_tables({"rna": write("x.tsv", XENA_RNA)}, write("clinical.csv", GDC_CLINICAL))
    np.testing.assert_allclose(mdata.obs["OS_time"], [10, 1])
    assert mdata.obs["OS_event"].tolist() == [1, 0]
    np.testing.assert_allclose(mdata.obs["age_at_index"], [61, np.nan])


def test_patient_and_sample_tables_together(write):
    samples = pd.DataFrame(
        {"SAMPLE_ID": ["S1-a", "S2-a", "S2-b"], "PATIENT_ID": ["P1", "P2", "P2"], "TYPE": ["x", "y", "z"]}
    )
    patients = pd.DataFrame({"PATIENT_ID": ["P1", "P2"], "AGE": [50, 60]})
    rna = pd.DataFrame({"Hugo_Symbol": ["A", "B"], "S1-a": [1, 2], "S2-b": [3, 4]})
    mdata = ae.datasets.cohort_from_tables({"rna": rna}, [patients, samples])
    assert list(mdata.obs_names) == ["P1", "P2"]
    assert mdata.obs["AGE"].tolist() == [50, 60]
    assert mdata.obs["TYPE"].tolist() == ["x", "y"]
    np.testing.assert_array_equal(mdata["rna"].X, [[1, 2], [3, 4]])


def test_mutations(write):
    mdata = ae.datasets.cohort_from_tables({}, maf=write("data_mutations.txt", MAF))
    mut = mdata["mut"]
    found = pd.DataFrame(mut.X.toarray(), mut.obs_names, mut.var_names)
    assert set(found.columns) == {"TP53", "PIK3CA"}
    assert found.loc["TCGA-3C-AALI"].to_dict() == {"TP53": 1, "PIK3CA": 0}
    assert found.loc["TCGA-3C-AALJ"].to_dict() == {"TP53": 0, "PIK3CA": 1}
    assert found.loc["TCGA-3C-AALK"].sum() == 0  # sequenced, with nothing but silent mutations
    assert report(mdata)["mut", "silent mutations"] == 2
    assert report(mdata)["mut", "further samples of a patient"] == 1


def test_all_orientations_give_the_same_modality(write, tmp_path):
    expected = ae.datasets.cohort_from_tables({"rna": write("x.tsv", XENA_RNA)})["rna"]
    features_by_samples = pd.read_csv(tmp_path / "x.tsv", sep="\t")
    samples_by_features = features_by_samples.set_index("sample").T
    flavours = {
        "rows, index": samples_by_features,
        "rows, column": samples_by_features.rename_axis("SAMPLE_ID").reset_index(),
        "rows, first column without a name": samples_by_features.reset_index(names="Unnamed: 0"),
        "columns, index": features_by_samples.set_index("sample"),
        "columns, R": features_by_samples.rename(columns=lambda c: c.replace("-", ".")),
        "columns, index without a name": features_by_samples.set_index("sample").rename_axis(None),
    }
    samples_by_features.to_csv(tmp_path / "rows.csv")
    flavours["rows, file"] = tmp_path / "rows.csv"
    with gzip.open(tmp_path / "x.tsv.gz", "wt") as file:
        file.write("#a comment\n" + XENA_RNA)
    flavours["columns, gzipped"] = tmp_path / "x.tsv.gz"
    for flavour, table in flavours.items():
        rna = ae.datasets.cohort_from_tables({"rna": table})["rna"]
        assert rna.to_df().equals(expected.to_df()), flavour


def test_no_patient_is_dropped_because_a_modality_is_missing(write, tmp_path):
    protein = pd.DataFrame({"p1": [1.0, np.nan], "p2": [2.0, np.nan]}, index=["TCGA-3C-AALK-01A", "TCGA-3C-AALI-01A"])
    mdata = ae.datasets.cohort_from_tables({"rna": write("x.tsv", XENA_RNA), "protein": protein})
    assert set(mdata.obs_names) == {"TCGA-3C-AALI", "TCGA-3C-AALJ", "TCGA-3C-AALK"}
    assert list(mdata["protein"].obs_names) == ["TCGA-3C-AALK"]
    assert report(mdata)["protein", "patients without any value"] == 1
    mdata.write_h5mu(tmp_path / "cohort.h5mu")
    again = mudata.read_h5mu(tmp_path / "cohort.h5mu")
    pd.testing.assert_frame_equal(
        again.uns["ae"]["cohort"]["dropped"], mdata.uns["ae"]["cohort"]["dropped"], check_dtype=False
    )


def test_tables_of_the_caller_are_left_alone(write):
    rna = pd.DataFrame({"Hugo_Symbol": ["A", "A"], "TCGA.3C.AALI": ["1", "[Not Available]"], "TCGA.3C.AALJ": [2, 3]})
    clinical = pd.DataFrame({"PATIENT_ID": ["TCGA-3C-AALI"], "AGE": ["[Not Available]"]})
    before = rna.copy(), clinical.copy()
    mdata = ae.datasets.cohort_from_tables({"rna": rna}, clinical)
    assert mdata["rna"].shape == (2, 1)
    pd.testing.assert_frame_equal(rna, before[0])
    pd.testing.assert_frame_equal(clinical, before[1])


def test_existing_survival_columns_are_kept():
    rna = pd.DataFrame({"A": [1.0, 2.0]}, index=["P1", "P2"])
    clinical = pd.DataFrame({"OS_time": [5.0, 6.0], "OS_MONTHS": [1.0, 1.0], "OS_STATUS": [1, 0]}, index=["P1", "P2"])
    mdata = ae.datasets.cohort_from_tables({"rna": rna}, clinical)
    assert mdata.obs["OS_time"].tolist() == [5, 6]
    assert "OS_event" not in mdata.obs


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ae.datasets.cohort_from_tables({}), ValueError, "modalities is empty; pass a dict"),
        (lambda: ae.datasets.cohort_from_tables({"rna": "no_such.tsv"}), FileNotFoundError, "rna.*no_such"),
        (lambda: ae.datasets.cohort_from_tables({"rna": pd.DataFrame()}), ValueError, "rna: the table is empty"),
        (
            lambda: ae.datasets.cohort_from_tables({"rna": pd.DataFrame({"A": [1, 2], "B": ["low", 3]}, ["P1", "P2"])}),
            ValueError,
            "'B' of 'P1' is 'low'",
        ),
        (
            lambda: ae.datasets.cohort_from_tables({}, maf=pd.DataFrame({"gene": ["TP53"]})),
            KeyError,
            "Tumor_Sample_Barcode; columns are",
        ),
        (
            lambda: ae.datasets.cohort_from_tables(
                {"rna": pd.DataFrame({"A": [1.0]}, ["P1"])}, pd.DataFrame({"age": [3]}, ["Q1"])
            ),
            ValueError,
            "identifiers agree",
        ),
    ],
)
def test_a_mistake_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
