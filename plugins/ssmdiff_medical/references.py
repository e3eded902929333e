"""What is cited for the published data sets; imports nothing, so that listing them is light."""

ACDC = (
    "Bernard et al., Deep Learning Techniques for Automatic MRI Cardiac Multi-structures "
    "Segmentation and Diagnosis: Is the Problem Solved?, IEEE Transactions on Medical Imaging "
    "2018, doi:10.1109/TMI.2018.2837502"
)
BRATS = (
    "Menze et al., The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS), IEEE "
    "Transactions on Medical Imaging 2015, doi:10.1109/TMI.2014.2377694; Bakas et al., Advancing "
    "The Cancer Genome Atlas glioma MRI collections with expert segmentation labels and radiomic "
    "features, Scientific Data 2017, doi:10.1038/sdata.2017.117; Bakas et al., Identifying the "
    "Best Machine Learning Algorithms for Brain Tumor Segmentation, arXiv:1811.02629"
)
CHESTXRAY14 = (
    "Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on "
    "Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017, "
    "doi:10.1109/CVPR.2017.369"
)
